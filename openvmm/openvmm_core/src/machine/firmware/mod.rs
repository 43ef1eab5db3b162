//! What the machine runs first, at power-on and after each reset.

mod hyperv;
mod hyperv_config;
mod igvm;
mod linux;
mod session;
mod uefi;
mod uefi_devices;
mod variables;
mod vp_registers;

pub(crate) use hyperv::HypervBoot;
pub(crate) use hyperv::HypervFirmware;
pub(crate) use hyperv::HypervPlan;
pub(crate) use igvm::IgvmBoot;
pub(crate) use igvm::PackedFirmware;
pub(crate) use linux::LinuxBoot;
pub(crate) use session::HibernationSink;
pub(crate) use session::SharedSession;
pub(crate) use uefi::FirmwareSource;
pub(crate) use uefi::PcFirmware;
pub use uefi::UefiError;
pub(crate) use uefi::UefiPlan;
pub use uefi_devices::FirmwareDeviceError;
pub(crate) use uefi_devices::GENERATION_ID_EVENT;
pub(crate) use uefi_devices::UefiDevices;
pub use variables::VariablesError;
pub(crate) use vp_registers::set_registers;

use guest_memory::GuestMemory;
use loader::ImageFileError;
use loader::ImportError;
use loader::VpRegisters;
use loader::igvm::IgvmLoadError;
use loader::linux::LoadError;

/// The name of the state unit of the firmware's session.
pub(crate) const SESSION_UNIT: &str = "firmware";

/// Why the machine cannot boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// An image file cannot be used.
    #[error(transparent)]
    File(#[from] ImageFileError),
    /// The kernel, or what goes with it, was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The IGVM file was refused.
    #[error(transparent)]
    Igvm(#[from] IgvmLoadError),
    /// The kernel, or what goes with it, cannot be written to guest memory.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// UEFI firmware, or what goes with it, cannot be used.
    #[error(transparent)]
    Uefi(#[from] UefiError),
}

/// What is loaded into guest memory before the first instruction.
pub(crate) enum LoadedImage {
    /// A Linux kernel.
    Linux(LinuxBoot),
    /// An IGVM file.
    Igvm(IgvmBoot),
    /// The firmware of a generation-2 VM.
    HypervUefi(HypervBoot),
}

impl LoadedImage {
    /// Loads everything into guest memory, and returns the registers that VPs start with.
    pub(crate) fn load(&self, memory: &GuestMemory) -> Result<VpRegisters, BootError> {
        match self {
            Self::Linux(linux) => linux.load(memory),
            Self::Igvm(igvm) => igvm.load(memory),
            Self::HypervUefi(firmware) => firmware.load(memory),
        }
    }
}
