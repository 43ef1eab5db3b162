//! An enlightenment in a machine: CPUID, MSRs, and state.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use machine_parts::EnlightenmentUnit;
use machine_parts::MachineBus;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use parking_lot::Mutex;
use state_unit::StateUnits;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use virt::Enlightenment;
use virt::Hypervisor as _;
use virt::IrqchipMode;
use virt::PartitionConfig;
use virt::ProcessorFeatures;
use virt::Topology;
use virt::TopologyConfig;
use virt::VpIndex;
use virt::VpStop;
use virt::VpTopology;
use virt::x86::CpuidEntry;
use virt_fake::Event;
use virt_fake::FakeHypervisor;
use virt_fake::Step;
use vmotherboard::ChipsetBuilder;

const LEAF: u32 = 0x4000_0001;
/// A register of each VP. Bit 63 cannot be set.
const SCRATCH: u32 = 0x4000_0010;
const UNKNOWN: u32 = 0x4000_0011;
/// Also known to the hypervisor, which must not keep it.
const SYSENTER_CS: u32 = 0x174;

#[derive(Debug, Default)]
struct Scratch(Mutex<BTreeMap<(u32, u32), u64>>);

impl Enlightenment for Scratch {
    fn name(&self) -> &'static str {
        "scratch"
    }

    fn cpuid(&self, vp: VpTopology) -> Vec<CpuidEntry> {
        vec![CpuidEntry {
            leaf: LEAF,
            eax: vp.index.0 + 7,
            ..Default::default()
        }]
    }

    fn msrs(&self) -> &[RangeInclusive<u32>] {
        &[SCRATCH..=SCRATCH, SYSENTER_CS..=SYSENTER_CS]
    }

    fn read_msr(&self, vp: VpIndex, index: u32) -> Option<u64> {
        Some(self.0.lock().get(&(vp.0, index)).copied().unwrap_or(0))
    }

    fn write_msr(&self, vp: VpIndex, index: u32, value: u64) -> Option<()> {
        if value >> 63 != 0 {
            return None;
        }
        self.0.lock().insert((vp.0, index), value);
        Some(())
    }

    fn reset(&self) {
        self.0.lock().clear();
    }

    fn save(&self) -> Result<SavedState, SaveError> {
        let registers: Vec<_> = self.0.lock().iter().map(|(&k, &v)| (k, v)).collect();
        Ok(SavedState::encode(&registers))
    }

    fn restore(&self, state: &SavedState) -> Result<(), RestoreError> {
        let registers: Vec<((u32, u32), u64)> = state.decode()?;
        *self.0.lock() = registers.into_iter().collect();
        Ok(())
    }
}

fn units(scratch: &Arc<Scratch>) -> StateUnits {
    let mut units = StateUnits::builder();
    units.add(scratch.name(), EnlightenmentUnit(scratch.clone()));
    units.build().unwrap()
}

#[test]
fn an_enlightenment_has_its_leaves_its_msrs_and_its_state() {
    let layout = MemoryLayout::new(MIN_RAM, MemoryLayout::DEFAULT_LOW_MMIO_START, 36).unwrap();
    let memory = GuestMemory::anonymous(layout).unwrap();
    let topology = Topology::new(TopologyConfig {
        processors: 2,
        vps_per_socket: None,
        threads_per_core: 1,
    })
    .unwrap();
    let scratch = Arc::new(Scratch::default());
    let processor = ProcessorFeatures {
        enlightenments: vec![scratch.clone()],
        ..Default::default()
    };
    let hypervisor = FakeHypervisor::new();
    let new = hypervisor
        .new_partition(PartitionConfig {
            topology: &topology,
            memory: &memory,
            irqchip: IrqchipMode::Kernel,
            processor: processor.clone(),
        })
        .unwrap();
    let cpuid = hypervisor.vp_state(1).cpuid;
    assert_eq!(cpuid.iter().find(|e| e.leaf == LEAF).unwrap().eax, 8);

    let bus = MachineBus::new(
        Arc::new(ChipsetBuilder::default().build().unwrap()),
        None,
        processor,
    );
    let mut vp = new.vps.into_iter().nth(1).unwrap().bind().unwrap();
    let write = |index, value| Step::WriteMsr { index, value };
    hypervisor.push(
        1,
        [
            write(SCRATCH, 5),
            write(SCRATCH, 1 << 63),
            write(UNKNOWN, 5),
            write(SYSENTER_CS, 6),
            Step::ReadMsr { index: SCRATCH },
            Step::ReadMsr { index: UNKNOWN },
            Step::TripleFault,
        ],
    );
    assert_eq!(vp.run(&bus).unwrap(), VpStop::TripleFault);
    let accesses: Vec<_> = hypervisor
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::MsrRead { index, value, .. } => Some((index, value)),
            Event::MsrWritten {
                index, accepted, ..
            } => Some((index, accepted.then_some(0))),
            _ => None,
        })
        .collect();
    assert_eq!(
        accesses,
        [
            (SCRATCH, Some(0)),
            (SCRATCH, None),
            (UNKNOWN, None),
            (SYSENTER_CS, Some(0)),
            (SCRATCH, Some(5)),
            (UNKNOWN, None),
        ]
    );
    assert_eq!(scratch.0.lock().len(), 2);

    let mut machine = units(&scratch);
    let saved = machine.save().unwrap();
    machine.reset().unwrap();
    assert!(scratch.0.lock().is_empty());
    let other = Arc::new(Scratch::default());
    units(&other).restore(&saved).unwrap();
    assert_eq!(other.read_msr(VpIndex(1), SCRATCH), Some(5));
    assert_eq!(other.read_msr(VpIndex(0), SCRATCH), Some(0));
}
