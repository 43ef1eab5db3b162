//! A machine of shared parts on the fake hypervisor: started, stopped, reset, saved and restored.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use machine_parts::BindingVps;
use machine_parts::ClockUnit;
use machine_parts::MachineBus;
use machine_parts::PartitionUnit;
use machine_parts::ReportKind;
use machine_parts::RunControl;
use machine_parts::VpSet;
use machine_parts::VpsUnit;
use parking_lot::Mutex;
use state_unit::StateUnits;
use std::sync::Arc;
use virt::Hypervisor as _;
use virt::IoBus;
use virt::IrqchipMode;
use virt::PartitionConfig;
use virt::ProcessorFeatures;
use virt::Topology;
use virt::TopologyConfig;
use virt::x86::Activity;
use virt_fake::Event;
use virt_fake::FakeHypervisor;
use virt_fake::Step;
use vmotherboard::ChipsetBuilder;
use vmtime::VmClock;

struct Machine {
    hypervisor: FakeHypervisor,
    units: StateUnits,
    vps: VpSet,
    reports: Arc<Mutex<Vec<ReportKind>>>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.vps.tear_down();
    }
}

fn machine() -> Machine {
    let layout = MemoryLayout::new(MIN_RAM, MemoryLayout::DEFAULT_LOW_MMIO_START, 36).unwrap();
    let memory = GuestMemory::anonymous(layout).unwrap();
    let topology = Topology::new(TopologyConfig {
        processors: 2,
        vps_per_socket: None,
        threads_per_core: 1,
    })
    .unwrap();
    let hypervisor = FakeHypervisor::new();
    let new = hypervisor
        .new_partition(PartitionConfig {
            topology: &topology,
            memory: &memory,
            irqchip: IrqchipMode::Kernel,
            processor: ProcessorFeatures::default(),
        })
        .unwrap();
    let chipset = Arc::new(ChipsetBuilder::default().build().unwrap());
    let processor = ProcessorFeatures::default();
    let bus: Arc<dyn IoBus> = Arc::new(MachineBus::new(chipset, None, processor));
    let reports = Arc::new(Mutex::new(Vec::new()));
    let report = reports.clone();
    let control = RunControl::new(move |r| report.lock().push(r.kind));
    let vps = BindingVps::new(new.vps, control)
        .unwrap()
        .finish(&bus)
        .unwrap();
    let mut units = StateUnits::builder();
    units.add("vmtime", ClockUnit(VmClock::new()));
    units
        .add("partition", PartitionUnit(new.partition))
        .depends_on("vmtime");
    units
        .add("vps", VpsUnit(vps.clone()))
        .depends_on("partition");
    Machine {
        hypervisor,
        units: units.build().unwrap(),
        vps,
        reports,
    }
}

fn position(events: &[Event], event: &Event) -> usize {
    events.iter().position(|e| e == event).unwrap()
}

#[test]
fn the_clock_runs_before_the_vps_and_stops_after_them() {
    let mut m = machine();
    m.units.start().unwrap();
    m.hypervisor.wait_until(|events| {
        let entered = |vp| events.contains(&Event::Enter { vp });
        entered(0) && entered(1)
    });
    m.units.stop();
    let events = m.hypervisor.take_events();
    let entered = [0, 1].map(|vp| position(&events, &Event::Enter { vp }));
    let left = events
        .iter()
        .rposition(|e| matches!(e, Event::Leave { .. }));
    assert!(
        entered
            .iter()
            .all(|at| *at > position(&events, &Event::StartClock))
    );
    assert!(left.unwrap() < position(&events, &Event::StopClock));
    assert!(!m.hypervisor.clock_is_running());
}

#[test]
fn what_was_saved_is_restored_and_a_reset_is_power_on() {
    let mut m = machine();
    let power_on = [0, 1].map(|vp| m.hypervisor.vp_state(vp));
    m.hypervisor.push(
        1,
        [
            Step::WriteMsr {
                index: 0x174,
                value: 0x10,
            },
            Step::ReadPort {
                port: 0x1234,
                size: 1,
            },
        ],
    );
    m.units.start().unwrap();
    m.hypervisor.wait_until(|events| {
        let read = Event::PortRead {
            vp: 1,
            port: 0x1234,
            data: vec![0xff],
        };
        events.contains(&read)
    });
    m.units.stop();
    m.hypervisor.change_vp(0, |vp| vp.registers.rip = 0x1234);
    m.hypervisor.change_partition(|p| p.clock_ns = 5);
    let saved = m.units.save().unwrap();

    let mut other = machine();
    other.units.restore(&saved).unwrap();
    for vp in [0, 1] {
        assert_eq!(other.hypervisor.vp_state(vp), m.hypervisor.vp_state(vp));
    }
    assert_eq!(other.hypervisor.vp_state(1).activity, Activity::Running);
    assert_eq!(
        other.hypervisor.partition_state(),
        m.hypervisor.partition_state()
    );
    assert_eq!(other.units.save().unwrap(), saved);

    m.units.reset().unwrap();
    assert_eq!([0, 1].map(|vp| m.hypervisor.vp_state(vp)), power_on);
    let events = m.hypervisor.take_events();
    assert!(events.contains(&Event::ResetPartition));
}

#[test]
fn a_triple_fault_stops_all_vps_and_is_reported() {
    let mut m = machine();
    m.hypervisor.push(1, [Step::TripleFault]);
    m.units.start().unwrap();
    let fault = |r: &ReportKind| matches!(r, ReportKind::TripleFault { vp, .. } if vp.0 == 1);
    m.hypervisor
        .wait_until(|_| m.reports.lock().iter().any(fault));
    // The other VP leaves the guest without anybody stopping the machine.
    m.hypervisor.wait_until(|events| {
        let enters = events.iter().filter(|e| matches!(e, Event::Enter { .. }));
        let leaves = events.iter().filter(|e| matches!(e, Event::Leave { .. }));
        enters.count() == leaves.count()
    });
    m.units.stop();
}
