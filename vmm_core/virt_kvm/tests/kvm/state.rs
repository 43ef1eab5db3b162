//! Saving, restoring, resetting.

use crate::code::Code;
use crate::machine::Bus;
use crate::machine::Machine;
use crate::machine::Options;
use crate::machine::region;
use crate::machine::run;
use std::thread;
use std::time::Duration;
use virt::Error;
use virt::MappingAccess;
use virt::Vp;
use virt::VpStop;
use virt::x86::Activity;
use virt::x86::Msr;
use virt::x86::PartitionState;
use virt::x86::Registers;
use virt::x86::VpState;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

const SYSENTER_CS: u32 = 0x174;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

fn counting() -> Code {
    Code::new().inc_dword(0x2000).inc_ebx().jmp(0)
}

fn run_for_a_while(vp: &mut dyn Vp) {
    let kick = vp.kicker();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            kick.kick();
        });
        assert_eq!(vp.run(&Bus::default()).unwrap(), VpStop::Requested);
    });
}

/// As a snapshot would carry it.
fn through_bytes(vp: &VpState, partition: &PartitionState) -> (VpState, PartitionState) {
    let vp_bytes = mesh::payload::encode(vp);
    let partition_bytes = mesh::payload::encode(partition);
    (
        mesh::payload::decode(&vp_bytes).unwrap(),
        mesh::payload::decode(&partition_bytes).unwrap(),
    )
}

fn assert_counts_agree(machine: &Machine, vp: &mut dyn Vp) -> u32 {
    let rbx = vp.registers().unwrap().rbx as u32;
    let counted = machine.read_u32(0x2000);
    assert!(counted == rbx || counted == rbx + 1, "{counted} {rbx}");
    counted
}

#[test]
fn a_counter_goes_on_in_another_partition() {
    let mut machine = Machine::new(&counting(), Options::default());
    let mut vp = machine.bsp();
    vp.set_msrs(&[(SYSENTER_CS, 0x10), (KERNEL_GS_BASE, 0x1234_5000)])
        .unwrap();
    run_for_a_while(&mut *vp);
    machine.partition.stop_clock().unwrap();
    let counted = assert_counts_agree(&machine, &mut *vp);
    assert!(counted > 0);
    let (vp_state, partition_state) =
        through_bytes(&vp.save().unwrap(), &machine.partition.save().unwrap());

    let mut other = Machine::new(&counting(), Options::default());
    other.write(0x2000, &counted.to_le_bytes());
    let mut other_vp = other.binders.remove(0).bind().unwrap();
    other.partition.restore(&partition_state).unwrap();
    other_vp.restore(&vp_state).unwrap();
    let again = other_vp.save().unwrap();
    assert_eq!(comparable(&again), comparable(&vp_state));
    assert_eq!(
        other.partition.save().unwrap().clock_ns,
        partition_state.clock_ns
    );
    for (index, value) in [(SYSENTER_CS, 0x10), (KERNEL_GS_BASE, 0x1234_5000)] {
        assert!(again.msrs.contains(&Msr { index, value }), "{index:#x}");
    }
    other.partition.start_clock().unwrap();
    run_for_a_while(&mut *other_vp);
    assert!(assert_counts_agree(&other, &mut *other_vp) > counted);
    assert_eq!(
        other
            .memory
            .map()
            .read_obj::<u8>(GuestAddress(0x1000))
            .unwrap(),
        0x66
    );
}

/// State without what goes on by itself: the local APIC's timer count, and counters.
fn comparable(state: &VpState) -> VpState {
    let mut state = state.clone();
    state.lapic[0x390..0x394].fill(0);
    state.tsc.value = 0;
    state
}

/// Registers without what KVM chooses at creation, and no guest can see: segments' types.
fn visible(registers: &Registers) -> Registers {
    let mut r = *registers;
    for segment in [
        &mut r.cs,
        &mut r.ds,
        &mut r.es,
        &mut r.fs,
        &mut r.gs,
        &mut r.ss,
        &mut r.tr,
        &mut r.ldtr,
    ] {
        segment.attributes = 0;
    }
    // The processor's signature, as leaf 1 of CPUID has it; KVM has one of its own.
    r.rdx = 0;
    r
}

#[test]
fn state_may_be_restored_where_it_was_saved() {
    let mut machine = Machine::new(&counting(), Options::default());
    let mut vp = machine.bsp();
    run_for_a_while(&mut *vp);
    let early = vp.save().unwrap();
    run_for_a_while(&mut *vp);
    assert_ne!(vp.save().unwrap().registers, early.registers);
    vp.restore(&early).unwrap();
    assert_eq!(comparable(&vp.save().unwrap()), comparable(&early));
}

#[test]
fn reset_is_power_on() {
    let code = Code::new().inc_ebx().done().hlt();
    let mut machine = Machine::new(
        &code,
        Options {
            processors: 2,
            ..Default::default()
        },
    );
    let rom = region(0xffff_0000, 0x1_0000, &[]);
    let start = Code::new().mov_dx(0x1234).out_dx_al().done();
    rom.write_slice(start.bytes(), vm_memory::MemoryRegionAddress(0xfff0))
        .unwrap();
    machine.partition.map(rom, MappingAccess::ReadOnly).unwrap();
    let mut ap = machine.binders.remove(1).bind().unwrap();
    let mut vp = machine.binders.remove(0).bind().unwrap();
    let (power_on, ap_power_on) = (vp.save().unwrap(), ap.save().unwrap());
    let chips = machine.partition.save().unwrap().irqchip;
    assert_eq!(ap_power_on.activity, Activity::WaitForInit);

    let bus = Bus::stopping(&*vp);
    assert_eq!(
        run(&mut *vp, &bus).len(),
        1,
        "the guest starts at the reset vector"
    );
    vp.set_msrs(&[(SYSENTER_CS, 0x10)]).unwrap();
    let mut r = vp.registers().unwrap();
    (r.cr3, r.cr0, r.rsi) = (0x5000, 0x11, 7);
    vp.set_registers(&r).unwrap();
    machine.partition.set_line(3, true);
    assert_ne!(
        machine
            .partition
            .save()
            .unwrap()
            .irqchip
            .map(|c| c.primary_pic),
        chips.map(|c| c.primary_pic)
    );

    machine.partition.reset().unwrap();
    vp.reset().unwrap();
    ap.reset().unwrap();
    let reset = vp.save().unwrap();
    assert_eq!(visible(&reset.registers), visible(&power_on.registers));
    assert_eq!(reset.msrs, power_on.msrs);
    assert_eq!(comparable(&reset).lapic, comparable(&power_on).lapic);
    assert_eq!(reset.debug, power_on.debug);
    assert_eq!(ap.save().unwrap().activity, Activity::WaitForInit);
    assert_eq!(
        comparable(&ap.save().unwrap()).lapic,
        comparable(&ap_power_on).lapic
    );
    assert_eq!(
        machine
            .partition
            .save()
            .unwrap()
            .irqchip
            .map(|c| c.primary_pic),
        chips.map(|c| c.primary_pic)
    );
    assert_eq!(run(&mut *vp, &bus).len(), 1);
}

#[test]
fn hostile_state_is_refused() {
    let mut machine = Machine::new(&counting(), Options::default());
    let mut vp = machine.bsp();
    let good = vp.save().unwrap();
    type Change = fn(&mut VpState);
    let changes: [(&str, Change); 12] = [
        ("short LAPIC", |s| s.lapic.truncate(1023)),
        ("long LAPIC", |s| s.lapic.push(0)),
        ("short XSAVE", |s| s.xsave.truncate(575)),
        ("huge XSAVE", |s| s.xsave.resize(1 << 20, 0)),
        ("XSAVE state that no host has", |s| {
            s.xsave.resize(60_000, 1);
        }),
        ("XSTATE_BV", |s| s.xsave[519] = 0x40),
        ("XCR0", |s| s.xcr0 = 1 << 62),
        ("CR0", |s| s.registers.cr0 |= 1 << 40),
        ("exception vector", |s| {
            s.events.exception = Some(virt::x86::Exception {
                vector: 32,
                injected: true,
                ..Default::default()
            });
        }),
        ("MSR", |s| {
            s.msrs.insert(
                0,
                Msr {
                    index: 0x1234_5678,
                    value: 1,
                },
            );
        }),
        ("CPUID entries", |s| {
            let entry = s.cpuid[0];
            s.cpuid.resize(10_000, entry);
        }),
        ("debug registers", |s| s.debug.dr7 = 1 << 40),
    ];
    for (what, change) in changes {
        let mut state = good.clone();
        change(&mut state);
        assert!(vp.restore(&state).is_err(), "{what}");
    }
    let Err(Error::InvalidRequest(text)) = ({
        let mut state = good.clone();
        state.msrs.insert(
            0,
            Msr {
                index: 0x1234_5678,
                value: 1,
            },
        );
        vp.restore(&state)
    }) else {
        panic!("not refused");
    };
    assert!(text.contains("0x12345678"), "{text}");
    vp.restore(&good).unwrap();
    run_for_a_while(&mut *vp);
}

#[test]
fn a_partition_without_irqchip_takes_no_irqchip_state() {
    let kernel = Machine::new(&Code::new(), Options::default());
    let split = Machine::new(
        &Code::new(),
        Options {
            irqchip: virt::IrqchipMode::Split,
            ..Default::default()
        },
    );
    let state = kernel.partition.save().unwrap();
    assert!(split.partition.restore(&state).is_err());
    assert!(
        kernel
            .partition
            .restore(&split.partition.save().unwrap())
            .is_err()
    );
    kernel.partition.restore(&state).unwrap();
}
