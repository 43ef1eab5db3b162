//! What the machine runs first, at power-on and after each reset.

mod linux;
mod session;
mod uefi;
mod uefi_devices;
mod variables;
mod vp_registers;

pub(crate) use linux::LinuxBoot;
pub(crate) use session::HibernationSink;
pub(crate) use session::SharedSession;
pub use uefi::UefiError;
pub(crate) use uefi::UefiPlan;
pub use uefi_devices::FirmwareDeviceError;
pub(crate) use uefi_devices::GENERATION_ID_EVENT;
pub(crate) use uefi_devices::UefiDevices;
pub use variables::VariablesError;
pub(crate) use vp_registers::set_registers;

use loader::ImageFileError;
use loader::ImportError;
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
    /// The kernel, or what goes with it, cannot be written to guest memory.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// UEFI firmware, or what goes with it, cannot be used.
    #[error(transparent)]
    Uefi(#[from] UefiError),
}
