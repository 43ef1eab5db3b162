//! All that a fake hypervisor keeps, behind one lock.

use crate::event::Event;
use crate::mappings::Mappings;
use crate::step::Step;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::MsiMessage;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use virt::Error;
use virt::HostInfo;
use virt::IrqchipMode;
use virt::ProcessorFeatures;
use virt::VpTopology;
use virt::x86::PartitionState;
use virt::x86::VpState;

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Notified when an event was added, a step was pushed or a VP was kicked.
    pub(crate) changed: Condvar,
}

pub(crate) struct State {
    pub(crate) host: HostInfo,
    /// Bits of ECX of CPUID leaf 1.
    pub(crate) features: u32,
    pub(crate) events: Vec<Event>,
    /// What each VP is yet to do, by VP index.
    pub(crate) scripts: BTreeMap<u32, VecDeque<Step>>,
    pub(crate) partitions: Vec<PartitionData>,
    pub(crate) last_id: u64,
}

pub(crate) struct PartitionData {
    pub(crate) irqchip: IrqchipMode,
    pub(crate) processor: ProcessorFeatures,
    pub(crate) mappings: Mappings,
    pub(crate) power_on: PartitionState,
    pub(crate) state: PartitionState,
    pub(crate) clock_running: bool,
    /// By GSI: what IOAPIC pins deliver in split mode.
    pub(crate) routes: BTreeMap<u32, MsiMessage>,
    pub(crate) vectors: Vec<VectorState>,
    pub(crate) doorbells: Vec<DoorbellState>,
    pub(crate) vps: Vec<VpData>,
}

/// The partition's end of a vector.
pub(crate) struct VectorState {
    pub(crate) id: u64,
    pub(crate) event: Arc<OwnedFd>,
    pub(crate) enabled: Option<MsiMessage>,
}

impl VectorState {
    /// Takes an event out of the eventfd, if there is one and the vector is enabled.
    pub(crate) fn deliver(&self) -> Option<Event> {
        let message = self.enabled?;
        rustix::io::read(&*self.event, &mut [0; 8]).ok()?;
        Some(Event::Msi(message))
    }
}

pub(crate) struct DoorbellState {
    pub(crate) id: u64,
    pub(crate) address: DoorbellAddress,
    pub(crate) matching: DoorbellMatch,
    pub(crate) event: OwnedFd,
}

pub(crate) struct VpData {
    pub(crate) topology: VpTopology,
    pub(crate) running: bool,
    pub(crate) kicked: bool,
    pub(crate) power_on: VpState,
    pub(crate) state: VpState,
}

impl Shared {
    pub(crate) fn record(&self, event: Event) {
        self.state.lock().events.push(event);
        self.changed.notify_all();
    }
}

impl State {
    pub(crate) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Takes what devices have written to the eventfds of enabled vectors.
    pub(crate) fn deliver_events(&mut self) {
        let vectors = self.partitions.iter().flat_map(|p| &p.vectors);
        self.events.extend(vectors.filter_map(VectorState::deliver));
    }

    pub(crate) fn contract_broken(&mut self, text: String) -> Error {
        self.events.push(Event::ContractBroken(text.clone()));
        Error::InvalidRequest(text)
    }

    /// Refuses `call` while VPs run.
    pub(crate) fn check_stopped(&mut self, partition: usize, call: &str) -> Result<(), Error> {
        let vps = &self.partitions[partition].vps;
        match vps.iter().find(|vp| vp.running) {
            Some(vp) => {
                let text = format!("{call} was called while {} runs", vp.topology.index);
                Err(self.contract_broken(text))
            }
            None => Ok(()),
        }
    }
}
