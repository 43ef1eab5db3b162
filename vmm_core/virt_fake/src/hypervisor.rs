//! The hypervisor, and a test's view of what happens in it.

use crate::event::Event;
use crate::mappings::Mappings;
use crate::mappings::range_of;
use crate::partition::FakePartition;
use crate::processor;
use crate::state::PartitionData;
use crate::state::Shared;
use crate::state::State;
use crate::state::VpData;
use crate::step::Step;
use crate::vp::FakeVp;
use chipset_device::DoorbellAddress;
use chipset_device::MsiMessage;
use guest_memory::MemoryRange;
use parking_lot::Condvar;
use parking_lot::MappedMutexGuard;
use parking_lot::Mutex;
use parking_lot::MutexGuard;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use virt::Error;
use virt::GuestProcessor;
use virt::HostInfo;
use virt::HostKind;
use virt::Hypervisor;
use virt::IrqchipMode;
use virt::MappingAccess;
use virt::NewPartition;
use virt::PartitionConfig;
use virt::ProcessorFeatures;
use virt::Topology;
use virt::VpBinder;
use virt::VpIndex;
use virt::x86::Irqchip;
use virt::x86::PartitionState;
use virt::x86::VpState;

/// As many as KVM has.
const MAX_MSI_VECTORS: u32 = 4057;

/// How long [`FakeHypervisor::wait_until`] waits before it takes the test for failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A hypervisor for tests. Clones are the same hypervisor.
///
/// Methods that look at a partition look at the one made last, and panic if there is none.
#[derive(Clone)]
pub struct FakeHypervisor(Arc<Shared>);

impl Default for FakeHypervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeHypervisor {
    /// A host with 46 address bits and without nested virtualization.
    pub fn new() -> Self {
        Self::with_host_info(HostInfo {
            kind: HostKind::Unknown,
            address_bits: 46,
            nested: false,
        })
    }

    /// A host that says this of itself.
    pub fn with_host_info(host: HostInfo) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                host,
                features: 0,
                events: Vec::new(),
                scripts: BTreeMap::new(),
                partitions: Vec::new(),
                last_id: 0,
            }),
            changed: Condvar::new(),
        }))
    }

    /// Gives the processors of further partitions these features: bits of ECX of CPUID leaf 1.
    pub fn set_features(&self, features: u32) {
        self.0.state.lock().features = features;
    }

    /// Appends steps to what VP `vp` does, whether or not it exists or runs yet.
    ///
    /// The first step that an application processor carries out starts it: no SIPI is needed.
    pub fn push(&self, vp: u32, steps: impl IntoIterator<Item = Step>) {
        let mut state = self.0.state.lock();
        state.scripts.entry(vp).or_default().extend(steps);
        self.0.changed.notify_all();
    }

    /// How many steps VP `vp` has yet to begin.
    pub fn steps_left(&self, vp: u32) -> usize {
        let state = self.0.state.lock();
        state.scripts.get(&vp).map_or(0, VecDeque::len)
    }

    /// What happened so far, oldest first.
    pub fn events(&self) -> Vec<Event> {
        let mut state = self.0.state.lock();
        state.deliver_events();
        state.events.clone()
    }

    /// The same, forgetting it.
    pub fn take_events(&self) -> Vec<Event> {
        let mut state = self.0.state.lock();
        state.deliver_events();
        std::mem::take(&mut state.events)
    }

    /// Waits until `condition` holds for what happened so far.
    ///
    /// Panics after 20 seconds.
    #[track_caller]
    pub fn wait_until(&self, condition: impl Fn(&[Event]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.0.state.lock();
        loop {
            // Nobody tells of writes to eventfds, so look for them now and then.
            state.deliver_events();
            if condition(&state.events) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "waited too long; the events were {:#?}",
                state.events
            );
            let wait = Duration::from_millis(5);
            self.0.changed.wait_for(&mut state, wait);
        }
    }

    #[track_caller]
    fn partition(&self) -> MappedMutexGuard<'_, PartitionData> {
        MutexGuard::map(self.0.state.lock(), |state| {
            let last = state.partitions.last_mut();
            last.unwrap_or_else(|| panic!("no partition was made"))
        })
    }

    /// The partition-wide state.
    #[track_caller]
    pub fn partition_state(&self) -> PartitionState {
        self.partition().state.clone()
    }

    /// Changes the partition-wide state, as time and devices would.
    #[track_caller]
    pub fn change_partition(&self, change: impl FnOnce(&mut PartitionState)) {
        change(&mut self.partition().state);
    }

    /// The state of VP `vp`.
    #[track_caller]
    pub fn vp_state(&self, vp: u32) -> VpState {
        self.partition().vps[vp as usize].state.clone()
    }

    /// Changes the state of VP `vp`, as its guest would.
    #[track_caller]
    pub fn change_vp(&self, vp: u32, change: impl FnOnce(&mut VpState)) {
        change(&mut self.partition().vps[vp as usize].state);
    }

    /// Whether the guest's clocks run.
    #[track_caller]
    pub fn clock_is_running(&self) -> bool {
        self.partition().clock_running
    }

    /// What is mapped, in order of address.
    #[track_caller]
    pub fn mappings(&self) -> Vec<(MemoryRange, MappingAccess)> {
        self.partition().mappings.list()
    }

    /// The doorbells that are registered.
    #[track_caller]
    pub fn doorbells(&self) -> Vec<DoorbellAddress> {
        let partition = self.partition();
        partition.doorbells.iter().map(|d| d.address).collect()
    }

    /// What IOAPIC pins deliver in split mode, by GSI.
    #[track_caller]
    pub fn routes(&self) -> BTreeMap<u32, MsiMessage> {
        self.partition().routes.clone()
    }
}

impl Hypervisor for FakeHypervisor {
    fn host_info(&self) -> Result<HostInfo, Error> {
        Ok(self.0.state.lock().host.clone())
    }

    fn max_msi_vectors(&self, _irqchip: IrqchipMode) -> u32 {
        MAX_MSI_VECTORS
    }

    fn guest_processor(
        &self,
        topology: &Topology,
        processor: &ProcessorFeatures,
    ) -> Result<GuestProcessor, Error> {
        let state = self.0.state.lock();
        let bsp = topology.vps()[0];
        Ok(GuestProcessor {
            cpuid: processor::cpuid(&state.host, state.features, processor, bsp),
            tsc_khz: Some(processor::TSC_KHZ),
        })
    }

    fn new_partition(&self, config: PartitionConfig<'_>) -> Result<NewPartition, Error> {
        let mut state = self.0.state.lock();
        let (host, features) = (state.host.clone(), state.features);
        if config.processor.nested && !host.nested {
            return Err(Error::NestedNotSupported);
        }
        let topology = config.topology.vps();
        let mut mappings = Mappings::default();
        for region in config.memory.regions() {
            let access = MappingAccess::ReadWrite;
            let range = range_of(region);
            mappings.map(region.clone(), access)?;
            state.events.push(Event::Map { range, access });
        }
        let power_on = PartitionState {
            clock_ns: 0,
            irqchip: (config.irqchip == IrqchipMode::Kernel).then(Irqchip::default),
        };
        let vps = topology.iter().map(|&topology| {
            let power_on = processor::power_on(&host, features, &config, topology);
            VpData {
                topology,
                running: false,
                kicked: false,
                state: power_on.clone(),
                power_on,
            }
        });
        let vps = vps.collect();
        let id = state.partitions.len();
        state.partitions.push(PartitionData {
            irqchip: config.irqchip,
            mappings,
            state: power_on.clone(),
            power_on,
            clock_running: true,
            routes: BTreeMap::new(),
            vectors: Vec::new(),
            doorbells: Vec::new(),
            vps,
            processor: config.processor,
        });
        let shared = &self.0;
        let binders = topology.iter().map(|vp| {
            Box::new(FakeVp {
                shared: shared.clone(),
                partition: id,
                index: VpIndex(vp.index.0),
            }) as Box<dyn VpBinder>
        });
        Ok(NewPartition {
            vps: binders.collect(),
            partition: Arc::new(FakePartition {
                shared: shared.clone(),
                id,
            }),
        })
    }
}
