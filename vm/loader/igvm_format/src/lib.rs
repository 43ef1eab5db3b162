//! IGVM files (Independent Guest Virtual Machine, format versions 1 and 2): parsed without copying, validated, and
//! written.
//!
//! A file is not trusted. [`IgvmFile::parse`] takes time and memory in proportion to the input, and refuses a
//! malformed one with an [`IgvmError`] that names the structure and its offset.
#![forbid(unsafe_code)]

mod error;
mod file;
mod header;
mod layout;
mod parse;
mod raw;
mod vp_context;
mod write;

pub use error::IgvmError;
pub use error::Problem;
pub use file::At;
pub use file::CcaPolicy;
pub use file::Corim;
pub use file::Directive;
pub use file::GuestPolicy;
pub use file::IgvmFile;
pub use file::Initialization;
pub use file::PageDataRecord;
pub use file::PageDataType;
pub use file::PageFlags;
pub use file::PageTableRegion;
pub use file::ParameterAreaRecord;
pub use file::ParameterInsert;
pub use file::ParameterKind;
pub use file::ParameterRecord;
pub use file::Platform;
pub use file::PlatformType;
pub use file::RelocatableRegion;
pub use file::RequiredMemory;
pub use file::Sized32;
pub use file::Skipped;
pub use file::SnpIdBlock;
pub use file::VbsMeasurement;
pub use file::VpContext;
pub use file::VpContextData;
pub use header::Architecture;
pub use header::Revision;
pub use header::is_igvm;
pub use header::with_valid_header;
pub use vp_context::DescriptorTableRegister;
pub use vp_context::NativeVpContext;
pub use vp_context::SegmentRegister;
pub use vp_context::VsmRegister;
pub use write::WriteError;

/// The size of a page, in bytes: the only one that files may state.
pub const PAGE: u64 = 4096;

/// The size of a page with [`PageFlags::LARGE`], in bytes.
pub const LARGE_PAGE: u64 = 2 << 20;

/// The most bytes that a file can have: offsets and sizes have 32 bits.
pub const MAX_FILE: u64 = u32::MAX as u64;

#[cfg(test)]
mod test_files;
#[cfg(test)]
mod tests;
