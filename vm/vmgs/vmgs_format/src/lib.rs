//! The byte layouts of a VMGS (virtual machine guest state) store, its file identifiers and its constants.
//!
//! Pure data: nothing here reads a disk or judges what it finds. All integers are little-endian.
//!
//! A store is a sequence of [blocks](BLOCK_SIZE). Two copies of the [header](Header) are in the first
//! two sectors and are written alternately. The one with the newer sequence number is active: it has the
//! block of the [file table](FileTableEntry), which locates up to 64 files, each in one contiguous run
//! of blocks.
#![no_std]
#![forbid(unsafe_code)]

mod file_id;
mod header;
mod hibernation;
mod table;

pub use file_id::FileId;
pub use file_id::FileIdRange;
pub use header::EncryptionAlgorithm;
pub use header::Header;
pub use header::MARKER_REPROVISIONED;
pub use header::MetadataKeyRecord;
pub use header::Version;
pub use hibernation::FIRMWARE_RECORD_HEADER_LEN;
pub use hibernation::FIRMWARE_RECORD_SECTION_LEN;
pub use hibernation::FirmwareFileKind;
pub use hibernation::FirmwareRecordHeader;
pub use hibernation::FirmwareRecordSection;
pub use hibernation::HIBERNATION_MIN_STORE_SIZE;
pub use hibernation::HIBERNATION_TOKEN_LEN;
pub use hibernation::HibernationToken;
pub use table::ExtendedFileTable;
pub use table::ExtendedFileTableEntry;
pub use table::FileAttributes;
pub use table::FileTable;
pub use table::FileTableEntry;

/// Size in bytes of a block, the unit of allocation.
pub const BLOCK_SIZE: u32 = 4096;
/// The first block that a table or file may use. The blocks before it are the header area.
pub const FIRST_DATA_BLOCK: u32 = 2;
/// Number of entries in each of the two file tables.
pub const FILE_COUNT: usize = 64;
/// Number of blocks in a store of the default size, 4 MiB.
pub const DEFAULT_BLOCK_COUNT: u32 = 1024;
/// Size in bytes of the header area at the start of the store, for any sector size.
pub const HEADER_AREA_SIZE: usize = 2 * BLOCK_SIZE as usize;
/// Length in bytes of every AES-GCM nonce.
pub const NONCE_LEN: usize = 12;
/// Length in bytes of every AES-GCM tag.
pub const TAG_LEN: usize = 16;
/// Length in bytes of every key.
pub const KEY_LEN: usize = 32;
