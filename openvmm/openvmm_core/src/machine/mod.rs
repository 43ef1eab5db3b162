//! The machine: everything that a configuration names, put together.

mod acpi;
mod build;
mod clock_store;
mod devices;
mod error;
mod firmware;
mod generation;
mod guest;
mod inventory;
mod media;
mod memory;
mod plan;
mod platform;
mod processor;
mod snapshot;
mod view;
mod vmgs_store;

pub(crate) use build::HostEnds;
pub use error::MachineError;
pub use firmware::BootError;
pub use firmware::FirmwareDeviceError;
pub(crate) use firmware::HibernationSink;
pub use firmware::UefiError;
pub use firmware::VariablesError;
pub use guest::LoadGuestError;
pub use media::MediaError;
pub use memory::MemorySizeError;
pub(crate) use memory::check as check_memory;
pub(crate) use plan::MachinePlan;
pub use processor::ProcessorError;
pub use snapshot::RestorableVm;
pub use snapshot::RestoreSnapshotError;
pub(crate) use snapshot::SaveSnapshotError;
pub use snapshot::SavedDiskError;
pub(crate) use snapshot::SnapshotRequest;
pub use snapshot::SnapshotSummary;
pub use snapshot::open_snapshot;
use vmgs_store::NewFile;
use vmgs_store::StoreImage;
pub use vmgs_store::VmgsError;

use chipset::pm::PmControl;
use generation::GenerationControl;
use guest::MachineGuest;
use machine_parts::Lifecycle;
use openvmm_defs::start::Start;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use vmotherboard::Chipset;

/// A machine that was built: its life, and what a front end can look at and press.
pub(crate) struct Machine {
    pub lifecycle: Lifecycle<MachineGuest>,
    chipset: Arc<Chipset>,
    pub pm: PmControl,
    /// What changes the generation ID, if the machine has one.
    generation: Option<GenerationControl>,
    /// The VMGS file, if it is new.
    new_file: Option<NewFile>,
    /// The VMGS store, to be read as a whole.
    store: Option<StoreImage>,
}

impl Machine {
    /// Brings the machine to where the guest begins. No VP has run yet.
    pub(crate) fn enter(&mut self, start: &Start) -> Result<(), MachineError> {
        match start {
            Start::Boot(_) => self.lifecycle.load()?,
            Start::Restore(saved) => {
                self.lifecycle.restore(&saved.units)?;
                if let (Some(id), Some(generation)) = (saved.generation_id, &self.generation) {
                    generation.change(id);
                }
            }
        }
        Ok(())
    }

    /// The machine runs: what its start created stays.
    pub(crate) fn started(&mut self) {
        if let Some(file) = self.new_file.take() {
            file.stays();
        }
        self.lifecycle.guest().media.disks.keep();
    }

    /// Ends the machine and its threads, and writes out what serial ports still hold.
    pub(crate) fn stop(&mut self) {
        self.lifecycle.stop();
        self.lifecycle.guest().serial.flush();
    }

    /// The live tree of the machine's state.
    pub(crate) fn inspect(&mut self) -> Value {
        let units = self.lifecycle.inspect();
        let guest = self.lifecycle.guest();
        let layout = guest.memory.layout();
        let ram: Vec<_> = layout.ram().iter().map(ToString::to_string).collect();
        json!({
            "memory": {
                "ram_bytes": layout.ram_size(),
                "ram": ram,
                "low_mmio": layout.low_mmio().to_string(),
            },
            "hibernation": units.get(firmware::SESSION_UNIT),
            "serial": units.get("serial"),
            "units": units,
            "unclaimed": self.chipset.unclaimed(),
        })
    }
}

#[cfg(test)]
#[path = "hibernation_test.rs"]
mod hibernation_tests;
#[cfg(test)]
#[path = "hyperv_test.rs"]
mod hyperv_tests;
#[cfg(test)]
#[path = "igvm_test.rs"]
mod igvm_tests;
#[cfg(test)]
#[path = "media_test.rs"]
mod media_tests;
#[cfg(test)]
#[path = "restore_test.rs"]
mod restore_tests;
#[cfg(test)]
#[path = "tables_test.rs"]
mod tables_tests;
#[cfg(test)]
pub(crate) mod test_bench;
#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;
