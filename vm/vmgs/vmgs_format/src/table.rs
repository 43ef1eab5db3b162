//! The file table and the extended file table.

use crate::FILE_COUNT;
use crate::KEY_LEN;
use crate::NONCE_LEN;
use crate::TAG_LEN;
use bitfield_struct::bitfield;
use core::fmt;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// How a file is stored.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FileAttributes {
    /// The content is encrypted with the file's data key.
    pub encrypted: bool,
    /// The content is authenticated by the file's tag.
    pub authenticated: bool,
    /// Unknown; kept as found.
    #[bits(30)]
    pub reserved: u32,
}

impl FileAttributes {
    /// What an encrypted file has.
    pub const PROTECTED: Self = Self::new().with_encrypted(true).with_authenticated(true);

    /// Whether the content needs a key to be read.
    pub const fn needs_key(self) -> bool {
        self.encrypted() || self.authenticated()
    }
}

/// Where a file is, and how it is protected. Entry 0 is the table's own, entry 63 the extended table's.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FileTableEntry {
    /// The first block.
    pub offset: U32,
    /// Blocks; 0 if there is no such file.
    pub allocation_size: U32,
    /// Bytes of content.
    pub valid_data_size: U64,
    /// The nonce of the encryption, or zero.
    pub nonce: [u8; NONCE_LEN],
    /// The tag of the encryption, or zero.
    pub tag: [u8; TAG_LEN],
    /// [`FileAttributes`]. Stores written before this field existed have 0 here even for encrypted
    /// files; their nonce and tag betray them.
    pub attributes: U32,
    /// Written 0.
    pub reserved: [u8; 16],
}

/// The file table: one block, never encrypted, indexed by [`FileId`](crate::FileId).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct FileTable {
    /// The entries.
    pub entries: [FileTableEntry; FILE_COUNT],
}

/// How a file is protected, as the one table that is authenticated has it.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ExtendedFileTableEntry {
    /// [`FileAttributes`].
    pub attributes: U32,
    /// The file's key, or zero.
    pub data_key: [u8; KEY_LEN],
    /// Written 0.
    pub reserved: [u8; 28],
}

/// The key stays out of logs.
impl fmt::Debug for ExtendedFileTableEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtendedFileTableEntry")
            .field("attributes", &FileAttributes::from(self.attributes.get()))
            .finish_non_exhaustive()
    }
}

/// The extended file table: one block, encrypted under the metadata key if the store has keys, indexed
/// by [`FileId`](crate::FileId). Its own entry (63) means nothing.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct ExtendedFileTable {
    /// The entries.
    pub entries: [ExtendedFileTableEntry; FILE_COUNT],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BLOCK_SIZE;
    use core::mem::offset_of;

    #[test]
    fn layout() {
        assert_eq!(size_of::<FileTable>(), BLOCK_SIZE as usize);
        assert_eq!(size_of::<ExtendedFileTable>(), BLOCK_SIZE as usize);
        assert_eq!(size_of::<FileTableEntry>(), 64);
        assert_eq!(size_of::<ExtendedFileTableEntry>(), 64);
        assert_eq!(offset_of!(FileTableEntry, valid_data_size), 8);
        assert_eq!(offset_of!(FileTableEntry, nonce), 16);
        assert_eq!(offset_of!(FileTableEntry, tag), 28);
        assert_eq!(offset_of!(FileTableEntry, attributes), 44);
        assert_eq!(offset_of!(FileTableEntry, reserved), 48);
        assert_eq!(offset_of!(ExtendedFileTableEntry, data_key), 4);
    }

    #[test]
    fn attributes() {
        assert_eq!(u32::from(FileAttributes::PROTECTED), 3);
        assert!(FileAttributes::from(2).needs_key());
        assert!(!FileAttributes::from(0xffff_fffc).needs_key());
        assert_eq!(u32::from(FileAttributes::from(0x8000_0001)), 0x8000_0001);
    }
}
