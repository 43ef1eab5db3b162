//! What runs on the machine: how it is loaded, and what is settled when it ends.

use super::firmware;
use super::firmware::BootError;
use super::firmware::LoadedImage;
use super::firmware::SharedSession;
use super::media::Media;
use guest_memory::GuestMemory;
use loader::VpRegisters;
use machine_parts::Ending;
use machine_parts::Guest;
use machine_parts::HaltReason;
use machine_parts::VpError;
use machine_parts::VpSet;
use serial_16550::SerialConnections;
use std::error::Error;
use std::sync::Arc;
use virt::VpIndex;

/// The guest of a machine, and what outlives its resets.
pub(crate) struct MachineGuest {
    pub memory: GuestMemory,
    /// What is loaded into guest memory; `None` for firmware in flash memory.
    pub image: Option<Box<LoadedImage>>,
    /// The registers that VPs start with, if the image was loaded while the machine was built.
    pub loaded: Option<VpRegisters>,
    /// The session of UEFI firmware.
    pub session: Option<SharedSession>,
    pub serial: Arc<SerialConnections>,
    pub media: Media,
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
        let Some(image) = &self.image else {
            // The VPs are at the reset vector.
            return Ok(());
        };
        let registers = match self.loaded.take() {
            Some(registers) => registers,
            None => image.load(&self.memory)?,
        };
        for (vp, values) in registers {
            vps.call(VpIndex(vp), move |vp| firmware::set_registers(vp, &values))??;
        }
        Ok(())
    }

    fn settle(&mut self, ending: Ending<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.serial.flush();
        if let Ending::Halted(HaltReason::Hibernate) = ending {
            // A guest may write its image without a flush. Nothing says that it hibernated before the image is on disk.
            if let Err(error) = self.media.sync() {
                if let Some(session) = &self.session {
                    session.settle(Ending::Stopped)?;
                }
                return Err(error.into());
            }
            if let Some(session) = &self.session {
                session.pin_disks(|| self.media.disks());
            }
        }
        match &self.session {
            Some(session) => Ok(session.settle(ending)?),
            None => Ok(()),
        }
    }
}
