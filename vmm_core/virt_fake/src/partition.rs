//! The partition.

use crate::event::Event;
use crate::mappings::range_of;
use crate::state::DoorbellState;
use crate::state::PartitionData;
use crate::state::Shared;
use crate::state::State;
use crate::vector;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::DoorbellTarget;
use chipset_device::LineTarget;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::MsiVector;
use guest_memory::GuestRegion;
use guest_memory::MemoryRange;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use virt::Error;
use virt::IrqchipMode;
use virt::MappingAccess;
use virt::Partition;
use virt::ProcessorIdentity;
use virt::x86::PartitionState;

const IOAPIC_PINS: u32 = 24;

/// What every partition's VPs say of the processor.
pub const PROCESSOR: ProcessorIdentity = ProcessorIdentity {
    signature: 0x178b_fbff_00a0_0f11,
    tsc_khz: 2_450_000,
};

pub(crate) struct FakePartition {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: usize,
}

impl FakePartition {
    /// Records `event`, then acts on the partition.
    fn act<R>(&self, event: Event, act: impl FnOnce(&mut PartitionData) -> R) -> R {
        let mut state = self.shared.state.lock();
        state.events.push(event);
        self.shared.changed.notify_all();
        act(&mut state.partitions[self.id])
    }

    /// The same, where VPs must not run.
    fn act_stopped<R>(
        &self,
        event: Event,
        act: impl FnOnce(&mut PartitionData) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut state = self.shared.state.lock();
        state.check_stopped(self.id, &format!("{event:?}"))?;
        state.events.push(event);
        self.shared.changed.notify_all();
        act(&mut state.partitions[self.id])
    }

    /// Whether the partition is in split mode and `gsi` a pin.
    fn check_pin(state: &mut State, id: usize, gsi: u32) -> Result<(), Error> {
        if state.partitions[id].irqchip == IrqchipMode::Split && gsi < IOAPIC_PINS {
            return Ok(());
        }
        Err(state.contract_broken(format!("interrupt line {gsi} has no MSI")))
    }
}

impl LineTarget for FakePartition {
    fn set_line(&self, gsi: u32, high: bool) {
        self.act(Event::SetLine { gsi, high }, |data| {
            if let Some(irqchip) = &mut data.state.irqchip
                && gsi < IOAPIC_PINS
            {
                let levels = &mut irqchip.ioapic.irr;
                *levels = *levels & !(1 << gsi) | u32::from(high) << gsi;
            }
        });
    }
}

impl MsiTarget for FakePartition {
    fn signal(&self, message: MsiMessage) {
        self.shared.record(Event::Msi(message));
    }

    fn new_vector(&self) -> io::Result<Box<dyn MsiVector>> {
        vector::new_vector(&self.shared, self.id)
    }
}

struct FakeDoorbell {
    shared: Arc<Shared>,
    partition: usize,
    id: u64,
}

impl Doorbell for FakeDoorbell {}

impl Drop for FakeDoorbell {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let doorbells = &mut state.partitions[self.partition].doorbells;
        if let Some(at) = doorbells.iter().position(|d| d.id == self.id) {
            let DoorbellState {
                address, matching, ..
            } = doorbells.remove(at);
            state.events.push(Event::DropDoorbell { address, matching });
            self.shared.changed.notify_all();
        }
    }
}

impl DoorbellTarget for FakePartition {
    fn register(
        &self,
        address: DoorbellAddress,
        matching: DoorbellMatch,
        event: BorrowedFd<'_>,
    ) -> io::Result<Box<dyn Doorbell>> {
        let event = event.try_clone_to_owned()?;
        let mut state = self.shared.state.lock();
        let id = state.new_id();
        let doorbells = &mut state.partitions[self.id].doorbells;
        if doorbells
            .iter()
            .any(|d| (d.address, d.matching) == (address, matching))
        {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        doorbells.push(DoorbellState {
            id,
            address,
            matching,
            event,
        });
        let event = Event::RegisterDoorbell { address, matching };
        state.events.push(event);
        self.shared.changed.notify_all();
        Ok(Box::new(FakeDoorbell {
            shared: self.shared.clone(),
            partition: self.id,
            id,
        }))
    }
}

impl Partition for FakePartition {
    fn map(&self, region: GuestRegion, access: MappingAccess) -> Result<(), Error> {
        let range = range_of(&region);
        self.act(Event::Map { range, access }, |data| {
            data.mappings.map(region, access)
        })
    }

    fn unmap(&self, range: MemoryRange) -> Result<(), Error> {
        self.act(Event::Unmap { range }, |data| data.mappings.unmap(range))
    }

    fn route_line(&self, gsi: u32, msi: Option<MsiMessage>) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        Self::check_pin(&mut state, self.id, gsi)?;
        state.events.push(Event::RouteLine { gsi, msi });
        let routes = &mut state.partitions[self.id].routes;
        match msi {
            Some(msi) => routes.insert(gsi, msi),
            None => routes.remove(&gsi),
        };
        self.shared.changed.notify_all();
        Ok(())
    }

    fn assert_line(&self, gsi: u32) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        Self::check_pin(&mut state, self.id, gsi)?;
        state.events.push(Event::AssertLine { gsi });
        let msi = state.partitions[self.id].routes.get(&gsi).copied();
        state.events.extend(msi.map(Event::Msi));
        self.shared.changed.notify_all();
        Ok(())
    }

    fn processor(&self) -> Result<ProcessorIdentity, Error> {
        Ok(PROCESSOR)
    }

    fn stop_clock(&self) -> Result<(), Error> {
        self.act_stopped(Event::StopClock, |data| {
            data.clock_running = false;
            Ok(())
        })
    }

    fn start_clock(&self) -> Result<(), Error> {
        self.act_stopped(Event::StartClock, |data| {
            data.clock_running = true;
            Ok(())
        })
    }

    fn reset(&self) -> Result<(), Error> {
        self.act_stopped(Event::ResetPartition, |data| {
            data.state.irqchip = data.power_on.irqchip;
            Ok(())
        })
    }

    fn save(&self) -> Result<PartitionState, Error> {
        self.act_stopped(Event::SavePartition, |data| Ok(data.state.clone()))
    }

    fn restore(&self, saved: &PartitionState) -> Result<(), Error> {
        self.act_stopped(Event::RestorePartition, |data| {
            if saved.irqchip.is_some() != (data.irqchip == IrqchipMode::Kernel) {
                return Err(Error::InvalidRequest(
                    "the saved state is of a partition with another kind of interrupt controllers"
                        .to_owned(),
                ));
            }
            data.state = saved.clone();
            data.clock_running = false;
            Ok(())
        })
    }

    fn inspect(&self) -> serde_json::Value {
        let state = self.shared.state.lock();
        let data = &state.partitions[self.id];
        serde_json::json!({
            "clock_running": data.clock_running,
            "vps": data.vps.len(),
        })
    }
}
