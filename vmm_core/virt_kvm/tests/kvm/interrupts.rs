//! Lines, messages, eventfds.

use crate::code::Code;
use crate::machine::Access;
use crate::machine::Bus;
use crate::machine::Machine;
use crate::machine::Options;
use crate::machine::run;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::MsiMessage;
use std::os::fd::AsFd as _;
use virt::IrqchipMode;

const LAPIC: u64 = 0xfee0_0000;
const IOAPIC: u64 = 0xfec0_0000;
const EOI: u16 = 0xb0;
const SVR: u16 = 0xf0;
const VECTOR: u8 = 0x45;
const HANDLER: u16 = 0x1800;

/// Enables the local APIC (ES is at its page), then waits for interrupts for ever.
fn wait() -> Code {
    let code = Code::new().store_es(SVR, 0x1ff).sti();
    let top = code.bytes().len();
    code.hlt().jmp(top)
}

/// As [`wait`], but stops the VP once the local APIC is enabled.
fn stop_and_wait() -> Code {
    let code = Code::new().store_es(SVR, 0x1ff).done().sti();
    let top = code.bytes().len();
    code.hlt().jmp(top)
}

/// Writes to a port, ends the interrupt, stops the VP.
fn handler() -> Code {
    Code::new()
        .mov_dx(0x1234)
        .mov_al(VECTOR)
        .out_dx_al()
        .store_es(EOI, 0)
        .done()
        .iret()
}

fn handled() -> Access {
    Access::PortWrite(0x1234, vec![VECTOR])
}

fn machine(options: Options) -> Machine {
    let machine = Machine::new(&wait(), options);
    machine.handle(VECTOR, HANDLER, &handler());
    machine
}

const fn msi(data: u32) -> MsiMessage {
    MsiMessage {
        address: LAPIC,
        data,
    }
}

#[test]
fn an_msi_wakes_a_halted_vp() {
    let mut machine = machine(Options::default());
    let mut vp = machine.bsp_with_es(LAPIC);
    let bus = Bus::stopping(&*vp);
    let partition = machine.partition.clone();
    let signal = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        // The guest may not have enabled its local APIC yet; then the message is lost, as on hardware.
        for _ in 0..100 {
            partition.signal(msi(VECTOR.into()));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    });
    assert_eq!(run(&mut *vp, &bus), [handled()]);
    signal.join().unwrap();
}

#[test]
fn an_eventfd_raises_an_msi_even_if_signalled_while_disabled() {
    let mut machine = machine(Options::default());
    let route = machine.partition.new_vector().unwrap();
    let mut vp = machine.bsp_with_es(LAPIC);
    let bus = Bus::stopping(&*vp);
    // Gets the guest past enabling its local APIC.
    machine.write(0x1000, stop_and_wait().bytes());
    assert_eq!(run(&mut *vp, &bus), []);

    let ring = || rustix::io::write(route.event(), &1u64.to_ne_bytes()).unwrap();
    route.enable(msi(VECTOR.into())).unwrap();
    ring();
    assert_eq!(run(&mut *vp, &bus), [handled()]);
    route.disable().unwrap();
    route.disable().unwrap();
    ring();
    route.enable(msi(VECTOR.into())).unwrap();
    assert_eq!(run(&mut *vp, &bus), [handled()]);
    // Another MSI, without disabling.
    machine.handle(VECTOR + 1, HANDLER + 0x100, &handler());
    route.enable(msi(u32::from(VECTOR) + 1)).unwrap();
    ring();
    assert_eq!(run(&mut *vp, &bus), [handled()]);
}

/// A guest can program any address.
#[test]
fn an_msi_that_no_local_apic_can_have_is_lost_without_an_error() {
    let mut machine = machine(Options::default());
    let route = machine.partition.new_vector().unwrap();
    let mut vp = machine.bsp_with_es(LAPIC);
    let bus = Bus::stopping(&*vp);
    machine.write(0x1000, stop_and_wait().bytes());
    assert_eq!(run(&mut *vp, &bus), []);

    let ring = || rustix::io::write(route.event(), &1u64.to_ne_bytes()).unwrap();
    route.enable(msi(VECTOR.into())).unwrap();
    for low_bit in [1 << 32, 0x80 << 32, 0xff_ffff_ffff] {
        let undeliverable = MsiMessage {
            address: LAPIC | low_bit,
            data: VECTOR.into(),
        };
        route.enable(undeliverable).unwrap();
        ring();
        machine.partition.signal(undeliverable);
    }
    // What was rung before does not come now.
    machine.handle(VECTOR + 1, HANDLER + 0x100, &handler());
    route.enable(msi(u32::from(VECTOR) + 1)).unwrap();
    ring();
    assert_eq!(run(&mut *vp, &bus), [handled()]);
}

#[test]
fn lines_still_work_after_the_routing_table_was_replaced() {
    let code = Code::new()
        // The PICs, which have the line too, are masked.
        .mov_al(0xff)
        .mov_dx(0x21)
        .out_dx_al()
        // Redirection entry of pin 5: vector, edge, to APIC 0.
        .store_es(0, 0x10 + 2 * 5)
        .store_es(0x10, VECTOR.into())
        .done();
    let mut machine = Machine::new(&code, Options::default());
    machine.handle(VECTOR, HANDLER, &handler());
    let mut vp = machine.bsp_with_es(IOAPIC);
    let bus = Bus::stopping(&*vp);
    assert_eq!(run(&mut *vp, &bus), []);
    let route = machine.partition.new_vector().unwrap();
    route.enable(msi(0x60)).unwrap();
    drop(route);
    let mut r = vp.registers().unwrap();
    r.es.base = LAPIC;
    r.rip = 0x1400;
    vp.set_registers(&r).unwrap();
    machine.write(0x1400, wait().bytes());
    let partition = machine.partition.clone();
    let line = std::thread::spawn(move || {
        // Edges that come before the local APIC is enabled are lost.
        for _ in 0..100 {
            partition.set_line(5, true);
            partition.set_line(5, false);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    });
    assert_eq!(run(&mut *vp, &bus), [handled()]);
    line.join().unwrap();
}

#[test]
fn in_split_mode_the_end_of_a_level_interrupt_exits() {
    let options = Options {
        irqchip: IrqchipMode::Split,
        ..Default::default()
    };
    let mut machine = machine(options);
    let partition = machine.partition.clone();
    // Bit 15: level-triggered; bit 14: asserted.
    partition
        .route_line(5, Some(msi(0xc000 | u32::from(VECTOR))))
        .unwrap();
    assert!(partition.route_line(24, None).is_err());
    let mut vp = machine.bsp_with_es(LAPIC);
    let bus = Bus::stopping(&*vp);
    machine.write(0x1000, stop_and_wait().bytes());
    assert_eq!(run(&mut *vp, &bus), []);
    partition.assert_line(5).unwrap();
    assert_eq!(run(&mut *vp, &bus), [handled(), Access::Eoi(VECTOR)]);
}

#[test]
fn doorbells_ring_without_exits() {
    const GPA: u64 = 0xd000_0000;
    let code = Code::new()
        .mov_dx(0x4444)
        .mov_eax(3)
        .out_dx_al()
        .out_dx_ax()
        .store_es_ax(0x10)
        .mov_eax(4)
        .store_es_ax(0x10)
        .done()
        .jmp(0);
    let mut machine = Machine::new(&code, Options::default());
    let mut vp = machine.bsp_with_es(GPA);
    let bus = Bus::stopping(&*vp);
    let event = || rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let count = |fd: &std::os::fd::OwnedFd| {
        let mut bytes = [0; 8];
        rustix::io::read(fd, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
    };
    let (port, gpa) = (event(), event());
    let ports = machine
        .partition
        .register(
            DoorbellAddress::Port(0x4444),
            DoorbellMatch::Any,
            port.as_fd(),
        )
        .unwrap();
    let three = machine
        .partition
        .register(
            DoorbellAddress::Gpa(GPA + 0x10),
            DoorbellMatch::U16(3),
            gpa.as_fd(),
        )
        .unwrap();
    let four = Access::MmioWrite(GPA + 0x10, vec![4, 0]);
    assert_eq!(run(&mut *vp, &bus), [four]);
    assert_eq!((count(&port), count(&gpa)), (2, 1));
    drop((ports, three));
    assert_eq!(run(&mut *vp, &bus).len(), 4);
    assert_eq!((count(&port), count(&gpa)), (0, 0));
}
