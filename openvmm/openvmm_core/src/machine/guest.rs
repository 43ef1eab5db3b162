//! What runs on the machine: how it is loaded, and what is settled when it ends.

use super::firmware;
use super::firmware::BootError;
use super::firmware::LinuxBoot;
use super::firmware::SharedSession;
use super::serial::SerialPorts;
use guest_memory::GuestMemory;
use loader::BootState;
use machine_parts::Ending;
use machine_parts::Guest;
use machine_parts::VpError;
use machine_parts::VpSet;
use std::error::Error;
use virt::VpIndex;

/// The guest of a machine, and what outlives its resets.
pub(crate) struct MachineGuest {
    pub memory: GuestMemory,
    pub address_bits: u8,
    /// The kernel that is started directly; `None` for firmware in flash memory.
    pub kernel: Option<Box<LinuxBoot>>,
    /// The kernel's first instruction, if it was loaded while the machine was built.
    pub loaded: Option<BootState>,
    /// The session of UEFI firmware.
    pub session: Option<SharedSession>,
    pub serial: SerialPorts,
}

/// Why the guest cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadGuestError {
    /// A file cannot be loaded into guest memory.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The boot processor's thread failed.
    #[error(transparent)]
    Vp(#[from] VpError),
    /// The hypervisor refused the boot processor's registers.
    #[error(transparent)]
    Registers(#[from] virt::Error),
}

impl Guest for MachineGuest {
    type LoadError = LoadGuestError;

    fn load(&mut self, vps: &VpSet) -> Result<(), LoadGuestError> {
        let Some(kernel) = &mut self.kernel else {
            // The VPs are at the reset vector.
            return Ok(());
        };
        let state = match self.loaded.take() {
            Some(state) => state,
            None => kernel.load(&self.memory)?,
        };
        let low_mmio = self.memory.layout().low_mmio();
        let bits = self.address_bits;
        vps.call(VpIndex::BSP, move |vp| {
            firmware::enter_linux(vp, &state, low_mmio, bits)
        })??;
        Ok(())
    }

    fn settle(&mut self, ending: Ending<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.serial.flush();
        match &self.session {
            Some(session) => Ok(session.settle(ending)?),
            None => Ok(()),
        }
    }
}
