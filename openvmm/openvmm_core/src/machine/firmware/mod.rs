//! What the machine runs first, at power-on and after each reset.

mod linux;
mod uefi;

pub(crate) use linux::enter as enter_linux;
pub(crate) use uefi::FirmwareDevices;
pub use uefi::UefiError;

use acpi_spec::TableSet;
use guest_memory::GuestMemory;
use guest_memory::MemoryLayout;
use linux::LinuxBoot;
use loader::BootState;
use loader::FileError;
use loader::linux::LoadError;
use openvmm_defs::config::Firmware;
use virt::Topology;

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
}

/// What the machine runs first.
pub(crate) enum Boot {
    /// A kernel, put into memory.
    Linux(LinuxBoot),
    /// What is in flash memory, from the reset vector on.
    ResetVector,
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
        topology: &Topology,
        tables: &TableSet,
        layout: &MemoryLayout,
    ) -> Result<(Self, FirmwareDevices), BootError> {
        match firmware {
            Firmware::LinuxDirect(linux) => {
                let boot = LinuxBoot::plan(linux, tables, layout)?;
                Ok((Self::Linux(boot), FirmwareDevices::None))
            }
            Firmware::PcUefi(uefi) => {
                let devices = uefi::prepare(uefi, topology, tables, layout)?;
                Ok((
                    Self::ResetVector,
                    FirmwareDevices::PcUefi(Box::new(devices)),
                ))
            }
        }
    }

    /// Loads what is in memory.
    pub(crate) fn load(&mut self, memory: &GuestMemory) -> Result<Entry, BootError> {
        match self {
            Self::Linux(boot) => Ok(Entry::Registers(Box::new(boot.load(memory)?))),
            Self::ResetVector => Ok(Entry::ResetVector),
        }
    }
}
