//! The byte layouts of a VMGS (virtual machine guest state) store, its file identifiers and its constants.
//!
//! Pure data: nothing here reads a disk or judges what it finds. All integers are little-endian.
//!
//! A store is a sequence of [blocks](BLOCK_SIZE). Two copies of the [header](Header) sit in the first
//! two sectors and are written alternately; the one with the newer sequence number names the block of
//! the [file table](FileTableEntry), which locates up to 64 files, each in one contiguous run of blocks.
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

/// Bytes in a block, the unit of allocation.
pub const BLOCK_SIZE: u32 = 4096;
/// The first block a table or file may occupy: the two before it belong to the headers.
pub const FIRST_DATA_BLOCK: u32 = 2;
/// Entries in each of the two file tables.
pub const FILE_COUNT: usize = 64;
/// Blocks in a store of the default size, 4 MiB.
pub const DEFAULT_BLOCK_COUNT: u32 = 1024;
/// Bytes at the start of the store that belong to the headers, whatever the sector size.
pub const HEADER_AREA_SIZE: usize = 2 * BLOCK_SIZE as usize;
/// Bytes of a nonce, everywhere in the format.
pub const NONCE_LEN: usize = 12;
/// Bytes of an authentication tag, everywhere in the format.
pub const TAG_LEN: usize = 16;
/// Bytes of a key, everywhere in the format.
pub const KEY_LEN: usize = 32;
