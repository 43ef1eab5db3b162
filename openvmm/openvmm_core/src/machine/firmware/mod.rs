//! What the machine runs first, at power-on and after each reset.

mod linux;
mod preserved;
mod uefi;
mod uefi_devices;

pub(crate) use linux::enter as enter_linux;
pub(crate) use preserved::HibernationSink;
pub(crate) use preserved::PreservedFirmware;
pub use preserved::RestartError;
pub use uefi::UefiError;
pub(crate) use uefi::UefiParts;
pub use uefi_devices::FirmwareDeviceError;
pub(crate) use uefi_devices::FirmwareDevices;
pub(crate) use uefi_devices::GENERATION_ID_EVENT;

use guest_memory::GuestMemory;
use linux::LinuxBoot;
use loader::BootState;
use loader::FileError;
use loader::linux::LoadError;
use openvmm_defs::config::Firmware;

/// Why the machine cannot boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// An image file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kernel, or what goes with it, was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// UEFI firmware, or what goes with it, cannot be used.
    #[error(transparent)]
    Uefi(#[from] UefiError),
    /// The machine cannot start over.
    #[error(transparent)]
    Restart(#[from] RestartError),
}

/// What the machine runs first.
pub(crate) enum Boot {
    /// A kernel, put into memory.
    Linux(Box<LinuxBoot>),
    /// What is in flash memory, from the reset vector on.
    ResetVector(Box<PreservedFirmware>),
}

/// How the boot processor starts.
pub(crate) enum Entry {
    /// With these registers.
    Registers(Box<BootState>),
    /// As reset leaves it.
    ResetVector,
}

impl Boot {
    /// Opens the files, and checks that they fit the machine.
    pub(crate) fn new(
        firmware: &Firmware,
        parts: &UefiParts<'_>,
    ) -> Result<(Self, FirmwareDevices), BootError> {
        match firmware {
            Firmware::LinuxDirect(linux) => {
                let boot = LinuxBoot::plan(linux, parts.tables, parts.layout)?;
                Ok((Self::Linux(Box::new(boot)), FirmwareDevices::None))
            }
            Firmware::PcUefi(uefi) => {
                let (devices, preserved) = uefi::prepare(uefi, parts)?;
                Ok((
                    Self::ResetVector(Box::new(preserved)),
                    FirmwareDevices::PcUefi(Box::new(devices)),
                ))
            }
        }
    }

    /// Loads what is in memory, when the machine is new.
    pub(crate) fn load(&mut self, memory: &GuestMemory) -> Result<Entry, BootError> {
        match self {
            Self::Linux(boot) => Ok(Entry::Registers(Box::new(boot.load(memory)?))),
            Self::ResetVector(_) => Ok(Entry::ResetVector),
        }
    }

    /// Loads what is in memory again, after a reset.
    pub(crate) fn reload(&mut self, memory: &GuestMemory) -> Result<Entry, BootError> {
        if let Self::ResetVector(preserved) = self {
            preserved.restart()?;
        }
        self.load(memory)
    }

    /// The firmware that is kept for a hibernated guest.
    pub(crate) fn preserved(&mut self) -> Option<&mut PreservedFirmware> {
        match self {
            Self::Linux(_) => None,
            Self::ResetVector(preserved) => Some(preserved),
        }
    }
}
