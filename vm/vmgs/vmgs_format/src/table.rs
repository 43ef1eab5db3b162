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

/// How a file is protected.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FileAttributes {
    /// The content is encrypted with the file's data key.
    pub encrypted: bool,
    /// The content is authenticated by the file's tag.
    pub authenticated: bool,
    /// Not defined; preserved.
    #[bits(30)]
    pub reserved: u32,
}

impl FileAttributes {
    /// The attributes of an encrypted file.
    pub const PROTECTED: Self = Self::new().with_encrypted(true).with_authenticated(true);

    /// Whether a key is needed to read the content.
    pub const fn needs_key(self) -> bool {
        self.encrypted() || self.authenticated()
    }
}

/// The location and protection of a file. Entry 0 describes the file table itself, entry 63 the extended
/// file table.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FileTableEntry {
    /// Number of the first block.
    pub offset: U32,
    /// Number of blocks; 0 if the file does not exist.
    pub allocation_size: U32,
    /// Length of the content in bytes.
    pub valid_data_size: U64,
    /// The AES-GCM nonce of the content, or zero.
    pub nonce: [u8; NONCE_LEN],
    /// The AES-GCM tag of the content, or zero.
    pub tag: [u8; TAG_LEN],
    /// [`FileAttributes`]. Stores written before this field existed have 0 here even for encrypted
    /// files, which can be recognized by a nonce and tag that are not zero.
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

/// The protection and the data key of a file. Unlike [`FileTableEntry`], it is authenticated if the store
/// is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ExtendedFileTableEntry {
    /// [`FileAttributes`].
    pub attributes: U32,
    /// The data key of the file, or zero.
    pub data_key: [u8; KEY_LEN],
    /// Written 0.
    pub reserved: [u8; 28],
}

/// Omits the data key.
impl fmt::Debug for ExtendedFileTableEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtendedFileTableEntry")
            .field("attributes", &FileAttributes::from(self.attributes.get()))
            .finish_non_exhaustive()
    }
}

/// The extended file table: one block, encrypted under the metadata key if the store has keys, indexed
/// by [`FileId`](crate::FileId). Entries 0 and 63 are not used.
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
