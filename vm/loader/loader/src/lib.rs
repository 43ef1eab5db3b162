//! Places a guest's first code in memory: Linux kernels, and all that they start with.
//!
//! A loader plans first, from the image file and the memory layout alone, and refuses what cannot work;
//! only then does it touch guest memory. What it returns is the boot processor's [`BootState`].
#![forbid(unsafe_code)]

mod boot_state;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod image_file;
pub mod linux;

pub use boot_state::BootState;
pub use boot_state::CpuMode;
pub use boot_state::DescriptorTable;
pub use boot_state::Segment;
pub use image_file::FileError;
pub use image_file::ImageFile;
