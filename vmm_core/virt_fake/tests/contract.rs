//! The fake keeps the contracts of `virt`'s traits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::MsiMessage;
use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use guest_memory::device_region;
use parking_lot::Mutex;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use virt::Error;
use virt::HostInfo;
use virt::HostKind;
use virt::Hypervisor as _;
use virt::IoBus;
use virt::IrqchipMode;
use virt::MappingAccess;
use virt::NewPartition;
use virt::Partition;
use virt::PartitionConfig;
use virt::ProcessorFeatures;
use virt::RunError;
use virt::Topology;
use virt::TopologyConfig;
use virt::Vp;
use virt::VpIndex;
use virt::VpKick;
use virt::VpStop;
use virt::x86::Activity;
use virt_fake::Event;
use virt_fake::FakeHypervisor;
use virt_fake::Step;

const MMIO: u64 = 0xd000_0000;

struct Machine {
    hypervisor: FakeHypervisor,
    partition: Arc<dyn Partition>,
    vps: Vec<Box<dyn Vp>>,
}

fn new_partition(
    hypervisor: &FakeHypervisor,
    processors: u32,
    irqchip: IrqchipMode,
    processor: ProcessorFeatures,
) -> Result<NewPartition, Error> {
    let layout = MemoryLayout::new(MIN_RAM, MemoryLayout::DEFAULT_LOW_MMIO_START, 36).unwrap();
    let memory = GuestMemory::anonymous(layout).unwrap();
    let topology = Topology::new(TopologyConfig {
        processors,
        vps_per_socket: None,
        threads_per_core: 1,
    })
    .unwrap();
    hypervisor.new_partition(PartitionConfig {
        topology: &topology,
        memory: &memory,
        irqchip,
        processor,
    })
}

fn machine(processors: u32, irqchip: IrqchipMode) -> Machine {
    let hypervisor = FakeHypervisor::new();
    let processor = ProcessorFeatures::default();
    let new = new_partition(&hypervisor, processors, irqchip, processor).unwrap();
    let vps = new.vps.into_iter().map(|vp| vp.bind().unwrap()).collect();
    hypervisor.take_events();
    Machine {
        hypervisor,
        partition: new.partition,
        vps,
    }
}

/// Answers reads with 0x5a, has one MSR, and kicks the VP at a write to port 0xf4.
struct Bus {
    kick: Arc<dyn VpKick>,
    seen: Mutex<Vec<String>>,
}

const BUS_MSR: u32 = 0x4000_0000;

impl Bus {
    fn new(vp: &dyn Vp) -> Self {
        Self {
            kick: vp.kicker(),
            seen: Mutex::default(),
        }
    }

    fn note(&self, text: String) {
        self.seen.lock().push(text);
    }
}

impl IoBus for Bus {
    fn read_port(&self, port: u16, data: &mut [u8]) {
        self.note(format!("in {port:#x}"));
        data.fill(0x5a);
    }
    fn write_port(&self, port: u16, data: &[u8]) {
        self.note(format!("out {port:#x} {data:x?}"));
        if port == 0xf4 {
            self.kick.kick();
        }
    }
    fn read_mmio(&self, gpa: u64, data: &mut [u8]) {
        self.note(format!("read {gpa:#x}"));
        data.fill(0x5a);
    }
    fn write_mmio(&self, gpa: u64, data: &[u8]) {
        self.note(format!("write {gpa:#x} {data:x?}"));
    }
    fn end_of_interrupt(&self, vector: u8) {
        self.note(format!("eoi {vector:#x}"));
    }
    fn read_msr(&self, vp: VpIndex, index: u32) -> Option<u64> {
        (index == BUS_MSR).then_some(vp.0.into())
    }
    fn write_msr(&self, _: VpIndex, index: u32, _: u64) -> Option<()> {
        (index == BUS_MSR).then_some(())
    }
}

fn stop() -> Step {
    Step::WritePort {
        port: 0xf4,
        data: vec![0],
    }
}

#[test]
fn a_script_is_carried_out_in_order() {
    let mut m = machine(1, IrqchipMode::Kernel);
    let vp = m.vps[0].as_mut();
    let bus = Bus::new(vp);
    m.hypervisor.push(
        0,
        [
            Step::ReadPort {
                port: 0x60,
                size: 2,
            },
            Step::ReadMemory { gpa: MMIO, size: 1 },
            Step::WriteMemory {
                gpa: 0x1000,
                data: vec![1, 2],
            },
            Step::ReadMemory {
                gpa: 0x1001,
                size: 1,
            },
            Step::ReadMsr { index: BUS_MSR },
            Step::WriteMsr {
                index: 0x1234,
                value: 7,
            },
            Step::WriteMsr {
                index: 0x174,
                value: 8,
            },
            Step::EndOfInterrupt { vector: 0x30 },
            stop(),
            Step::ReadPort {
                port: 0x61,
                size: 1,
            },
        ],
    );
    assert_eq!(vp.run(&bus).unwrap(), VpStop::Requested);
    let seen = std::mem::take(&mut *bus.seen.lock());
    assert_eq!(
        seen,
        ["in 0x60", "read 0xd0000000", "eoi 0x30", "out 0xf4 [0]"]
    );
    assert_eq!(
        m.hypervisor.take_events(),
        [
            Event::Enter { vp: 0 },
            Event::PortRead {
                vp: 0,
                port: 0x60,
                data: vec![0x5a; 2]
            },
            Event::MemoryRead {
                vp: 0,
                gpa: MMIO,
                data: vec![0x5a]
            },
            Event::MemoryWritten {
                vp: 0,
                gpa: 0x1000,
                data: vec![1, 2]
            },
            Event::MemoryRead {
                vp: 0,
                gpa: 0x1001,
                data: vec![2]
            },
            Event::MsrRead {
                vp: 0,
                index: BUS_MSR,
                value: Some(0)
            },
            Event::MsrWritten {
                vp: 0,
                index: 0x1234,
                value: 7,
                accepted: false
            },
            Event::MsrWritten {
                vp: 0,
                index: 0x174,
                value: 8,
                accepted: true
            },
            Event::InterruptEnded {
                vp: 0,
                vector: 0x30
            },
            Event::PortWritten {
                vp: 0,
                port: 0xf4,
                data: vec![0]
            },
            Event::Leave {
                vp: 0,
                stop: Some(VpStop::Requested)
            },
        ]
    );
    assert_eq!(m.hypervisor.steps_left(0), 1, "nothing ran after the kick");
}

#[test]
fn a_kick_before_the_run_counts_and_kicks_do_not_add_up() {
    let mut m = machine(1, IrqchipMode::Kernel);
    let vp = m.vps[0].as_mut();
    let bus = Bus::new(vp);
    m.hypervisor
        .push(0, [Step::ReadPort { port: 1, size: 1 }, stop()]);
    vp.kicker().kick();
    vp.kicker().kick();
    assert_eq!(vp.run(&bus).unwrap(), VpStop::Requested);
    assert!(bus.seen.lock().is_empty());
    assert_eq!(vp.run(&bus).unwrap(), VpStop::Requested);
    assert_eq!(*bus.seen.lock(), ["in 0x1", "out 0xf4 [0]"]);
}

#[test]
fn a_vp_waits_for_steps_and_halts_until_kicked() {
    let mut m = machine(1, IrqchipMode::Kernel);
    let vp = m.vps[0].as_mut();
    let bus = Bus::new(vp);
    let (hypervisor, kick) = (m.hypervisor.clone(), vp.kicker());
    let kicking = thread::spawn(move || {
        hypervisor.wait_until(|events| events.contains(&Event::Enter { vp: 0 }));
        hypervisor.push(0, [Step::ReadPort { port: 1, size: 1 }, Step::Halt]);
        hypervisor.wait_until(|events| {
            let read = |event: &Event| matches!(event, Event::PortRead { .. });
            events.iter().any(read)
        });
        while hypervisor.vp_state(0).activity != Activity::Halted {
            thread::yield_now();
        }
        kick.kick();
    });
    assert_eq!(vp.run(&bus).unwrap(), VpStop::Requested);
    kicking.join().unwrap();
    assert_eq!(vp.save().unwrap().activity, Activity::Halted);
}

#[test]
fn triple_faults_and_failures_end_a_run() {
    let mut m = machine(1, IrqchipMode::Kernel);
    let vp = m.vps[0].as_mut();
    let bus = Bus::new(vp);
    let error = RunError::FailEntry {
        vp: VpIndex(0),
        reason: 7,
    };
    m.hypervisor.push(0, [Step::TripleFault, Step::Fail(error)]);
    assert_eq!(vp.run(&bus).unwrap(), VpStop::TripleFault);
    assert!(matches!(
        vp.run(&bus),
        Err(RunError::FailEntry { reason: 7, .. })
    ));
}

#[test]
fn saved_state_is_restored_equal_in_another_partition() {
    let mut m = machine(2, IrqchipMode::Kernel);
    m.hypervisor.change_vp(1, |vp| {
        vp.registers.rip = 0x1234;
        vp.activity = Activity::Halted;
        vp.lapic[0x80] = 5;
        vp.tsc.value = 99;
    });
    m.hypervisor.change_partition(|p| p.clock_ns = 77);
    m.partition.set_line(4, true);
    m.partition.stop_clock().unwrap();
    let partition = m.partition.save().unwrap();
    let vps: Vec<_> = m.vps.iter_mut().map(|vp| vp.save().unwrap()).collect();
    assert_eq!(partition.irqchip.unwrap().ioapic.irr, 1 << 4);
    assert_eq!(m.hypervisor.vp_state(1), vps[1]);

    let mut other = machine(2, IrqchipMode::Kernel);
    assert_ne!(other.vps[1].save().unwrap(), vps[1]);
    other.partition.restore(&partition).unwrap();
    for (vp, state) in other.vps.iter_mut().zip(&vps) {
        vp.restore(state).unwrap();
        assert_eq!(vp.save().unwrap(), *state);
    }
    assert_eq!(other.partition.save().unwrap(), partition);
    assert!(!other.hypervisor.clock_is_running());
    other.partition.start_clock().unwrap();
    assert!(other.hypervisor.clock_is_running());

    let split = machine(1, IrqchipMode::Split);
    assert!(split.partition.restore(&partition).is_err());
    let mut short = vps[0].clone();
    short.lapic.pop();
    assert!(other.vps[0].restore(&short).is_err());
}

#[test]
fn reset_is_power_on() {
    let mut m = machine(2, IrqchipMode::Kernel);
    let power_on: Vec<_> = m.vps.iter_mut().map(|vp| vp.save().unwrap()).collect();
    assert!(power_on[0].registers.at_reset_vector());
    assert_eq!(power_on[0].activity, Activity::Running);
    assert_eq!(power_on[1].activity, Activity::WaitForInit);
    let vp = m.vps[1].as_mut();
    let bus = Bus::new(vp);
    m.hypervisor.push(1, [stop()]);
    vp.run(&bus).unwrap();
    assert_eq!(vp.save().unwrap().activity, Activity::Running);
    vp.set_msrs(&[(0x2ff, 0xc06)]).unwrap();
    assert!(vp.set_msrs(&[(0x1234, 1)]).is_err());
    let mut registers = vp.registers().unwrap();
    registers.rax = 1;
    vp.set_registers(&registers).unwrap();
    assert_ne!(vp.save().unwrap(), power_on[1]);
    vp.reset().unwrap();
    assert_eq!(vp.save().unwrap(), power_on[1]);
    m.partition.set_line(4, true);
    m.partition.reset().unwrap();
    assert_eq!(
        m.hypervisor.partition_state().irqchip.unwrap().ioapic.irr,
        0
    );
}

#[test]
fn calls_that_need_stopped_vps_are_refused_while_one_runs() {
    let mut m = machine(1, IrqchipMode::Kernel);
    let mut vp = m.vps.remove(0);
    let kick = vp.kicker();
    let hypervisor = m.hypervisor.clone();
    let partition = m.partition.clone();
    let checking = thread::spawn(move || {
        hypervisor.wait_until(|events| events.contains(&Event::Enter { vp: 0 }));
        assert!(partition.save().is_err());
        assert!(partition.stop_clock().is_err());
        kick.kick();
    });
    let bus = Bus::new(vp.as_ref());
    vp.run(&bus).unwrap();
    checking.join().unwrap();
    let events = m.hypervisor.take_events();
    let broken = |event: &&Event| matches!(event, Event::ContractBroken(_));
    assert_eq!(events.iter().filter(broken).count(), 2);
    m.partition.save().unwrap();
}

fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap()
}

fn ring(event: BorrowedFd<'_>) {
    rustix::io::write(event, &1u64.to_ne_bytes()).unwrap();
}

const fn msi(data: u32) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_0000,
        data,
    }
}

#[test]
fn vectors_hold_events_back_while_disabled() {
    let m = machine(1, IrqchipMode::Kernel);
    let vector = m.partition.new_vector().unwrap();
    ring(vector.event());
    assert_eq!(m.hypervisor.events(), []);
    vector.enable(msi(1)).unwrap();
    ring(vector.event());
    vector.disable().unwrap();
    ring(vector.event());
    vector.enable(msi(2)).unwrap();
    m.partition.signal(msi(3));
    let msis = [1, 1, 2, 3].map(|data| Event::Msi(msi(data)));
    assert_eq!(m.hypervisor.take_events(), msis);
}

#[test]
fn pins_deliver_their_msi_in_split_mode_only() {
    let m = machine(1, IrqchipMode::Split);
    m.partition.route_line(5, Some(msi(9))).unwrap();
    m.partition.assert_line(5).unwrap();
    assert!(m.partition.route_line(24, None).is_err());
    assert_eq!(
        m.hypervisor.take_events()[..3],
        [
            Event::RouteLine {
                gsi: 5,
                msi: Some(msi(9))
            },
            Event::AssertLine { gsi: 5 },
            Event::Msi(msi(9)),
        ]
    );
    assert_eq!(m.hypervisor.routes()[&5], msi(9));
    let kernel = machine(1, IrqchipMode::Kernel);
    assert!(kernel.partition.route_line(5, Some(msi(9))).is_err());
}

#[test]
fn doorbells_ring_and_keep_the_write_from_the_bus() {
    let mut m = machine(1, IrqchipMode::Kernel);
    let event = eventfd();
    let address = DoorbellAddress::Gpa(MMIO + 0x10);
    let doorbell = m
        .partition
        .register(address, DoorbellMatch::U16(3), event.as_fd())
        .unwrap();
    assert_eq!(m.hypervisor.doorbells(), [address]);
    let write = |value: u8| Step::WriteMemory {
        gpa: MMIO + 0x10,
        data: vec![value, 0],
    };
    m.hypervisor.push(0, [write(3), write(4), stop()]);
    let vp = m.vps[0].as_mut();
    let bus = Bus::new(vp);
    vp.run(&bus).unwrap();
    assert_eq!(
        *bus.seen.lock(),
        ["write 0xd0000010 [4, 0]", "out 0xf4 [0]"]
    );
    let mut count = [0; 8];
    rustix::io::read(&event, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
    drop(doorbell);
    assert_eq!(m.hypervisor.doorbells(), []);
}

#[test]
fn mappings_can_be_read_only_and_do_not_overlap() {
    let mut m = machine(1, IrqchipMode::Kernel);
    let range = MemoryRange {
        start: MMIO,
        end: MMIO + 0x3000,
    };
    let region = device_region(range.start, range.len()).unwrap();
    let write = |offset| Step::WriteMemory {
        gpa: MMIO + offset,
        data: vec![1],
    };
    let vp = m.vps[0].as_mut();
    let bus = Bus::new(vp);
    let map = |access| m.partition.map(region.clone(), access).unwrap();
    map(MappingAccess::ReadOnly);
    m.hypervisor.push(0, [write(0), stop()]);
    vp.run(&bus).unwrap();
    assert_eq!(bus.seen.lock()[0], "write 0xd0000000 [1]");
    map(MappingAccess::ReadWrite);
    m.hypervisor.push(0, [write(0x2fff), stop()]);
    vp.run(&bus).unwrap();
    assert_eq!(bus.seen.lock().len(), 3, "the second write is to memory");
    let overlapping = device_region(MMIO + 0x1000, 0x1000).unwrap();
    let access = MappingAccess::ReadWrite;
    assert!(m.partition.map(overlapping.clone(), access).is_err());
    m.partition.unmap(range).unwrap();
    assert!(m.partition.unmap(range).is_err());
    m.partition.map(overlapping, access).unwrap();
}

#[test]
fn the_host_decides_what_a_partition_can_have() {
    let nested = ProcessorFeatures {
        nested: true,
        ..Default::default()
    };
    let refused = |hypervisor: &FakeHypervisor, processors, nested| {
        new_partition(hypervisor, processors, IrqchipMode::Kernel, nested).is_err()
    };
    assert!(refused(&FakeHypervisor::new(), 1, nested.clone()));
    let host = FakeHypervisor::with_host_info(HostInfo {
        kind: HostKind::Vmx,
        address_bits: 39,
        nested: true,
    });
    assert!(!refused(&host, 2, nested));
    let cpuid = host.vp_state(1).cpuid;
    let leaf = |leaf| cpuid.iter().find(|e| e.leaf == leaf).unwrap();
    assert_eq!(leaf(0x8000_0008).eax, 39);
    assert_eq!(leaf(1).ecx >> 5 & 1, 1, "VMX");
}
