//! What a firmware file is: OVMF in one of its builds, MSVM, or no firmware for this machine.
//!
//! [`FirmwareFile::open`] looks at the file itself, not at its name. An OVMF image says where its parts go and how
//! large its variable store is; [`check_variables`] looks at one of those. [`installed`] finds the firmware that
//! distributions install.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod constructed;
mod error;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod image;
mod install;
mod smm;
mod variables;
mod volume;

pub use error::ImageError;
pub use error::SmmError;
pub use error::VariablesError;
pub use file::FileError;
pub use file::FirmwareFile;
pub use image::Firmware;
pub use image::Ovmf;
pub use image::Region;
pub use install::Installed;
pub use install::installed;
pub use install::searched_places;
pub use install::template_beside;
pub use smm::runs_without_smm;
pub use variables::VariablesState;
pub use variables::check_variables;

/// The largest firmware image, in bytes: what a PC's chipset decodes as ROM below 4 GiB.
pub const MAX_SIZE: u64 = 16 << 20;
