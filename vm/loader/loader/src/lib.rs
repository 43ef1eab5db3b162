//! Loads what a guest runs first: Linux kernels with all that they start with, UEFI firmware (OVMF and MSVM), and IGVM files.
//!
//! A payload is planned from its files and the memory layout alone, and what cannot work is refused; only then
//! is it imported through [`ImageLoad`], into guest memory by [`GuestImage`].
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod guest_image;
pub mod igvm;
mod image_file;
mod image_load;
pub mod linux;
pub mod msvm;
mod mtrr;
pub mod ovmf;
mod page_tables;
mod register;
#[cfg(test)]
mod test_support;

pub use guest_image::GuestImage;
pub use guest_image::VpRegisters;
pub use image_file::ImageFile;
pub use image_file::ImageFileError;
pub use image_load::ImageLoad;
pub use image_load::ImportError;
pub use image_load::PageData;
pub use image_load::PageImport;
pub use image_load::PageKind;
pub use image_load::Parameter;
pub use image_load::ParameterArea;
pub use image_load::Piece;
pub use register::BootSegment;
pub use register::DescriptorTable;
pub use register::VpRegister;

/// The index of the boot processor.
pub const BSP: u32 = 0;

/// The size of a page, in bytes.
const PAGE: u64 = 4096;
