//! Recognizing firmware files: builds of OVMF, MSVM, or neither.
//!
//! [`FirmwareFile::open`] examines the content of a file, not its name. [`Ovmf`] has the addresses of the parts of an
//! image and the size of its variable store; [`check_variables`] checks such a store. [`installed`] finds the
//! firmware that distributions install.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod constructed;
mod error;
mod file;
mod fresh;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod image;
mod install;
mod sec;
mod smm;
mod variables;
mod volume;

pub use error::ImageError;
pub use error::SmmError;
pub use error::VariablesError;
pub use file::FirmwareFile;
pub use file::FirmwareFileError;
pub use fresh::fresh_variables;
pub use image::FirmwareKind;
pub use image::Ovmf;
pub use image::Region;
pub use install::Installed;
pub use install::installed;
pub use install::searched_places;
pub use install::template_beside;
pub use sec::SecError;
pub use sec::sec_entry;
pub use smm::runs_without_smm;
pub use variables::VariablesState;
pub use variables::check_variables;

/// The maximum size of a firmware image, in bytes: the ROM window of a PC's chipset below 4 GiB.
pub const MAX_SIZE: u64 = 16 << 20;
