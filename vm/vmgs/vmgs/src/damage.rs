//! What can be wrong with a header, and with a file's entry in the tables.

use std::fmt;
use vmgs_format::FileId;
use vmgs_format::Version;

/// Why a header copy is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The header is all zero: never written, or wiped.
    #[error("it is all zero")]
    Zero,
    /// The signature is not that of a store.
    #[error("invalid header signature")]
    Signature,
    /// The version is not supported.
    #[error("invalid header version {0}")]
    Version(Version),
    /// The header states a length that its version does not have.
    #[error("invalid header size {0}")]
    Size(u32),
    /// The block of the file table is outside the store, or in the header area.
    #[error("invalid file table offset {0}")]
    TableOffset(u32),
    /// The file table does not have exactly one block.
    #[error("invalid file table size {0}")]
    TableSize(u32),
    /// The encryption algorithm is not supported.
    #[error("invalid encryption algorithm {0}")]
    Algorithm(u16),
    /// The checksum is wrong.
    #[error("invalid header checksum {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the header's bytes.
        computed: u32,
    },
}

/// How a file's entry in the tables is inconsistent. Other files are not affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Some of the file's blocks are outside the store.
    OutsideStore,
    /// The file is longer than its blocks.
    SizeExceedsBlocks,
    /// The file shares blocks with this file or table.
    Overlaps(FileId),
    /// The file is encrypted according to the authenticated extended file table, but not according to
    /// the file table. The disk was tampered with, or the file was replaced while the store was locked.
    ExpectedEncrypted,
    /// The file is encrypted according to the file table, but not according to the authenticated
    /// extended file table: its key is lost.
    ExpectedPlain,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideStore => f.write_str("its blocks are outside the store"),
            Self::SizeExceedsBlocks => f.write_str("it is longer than its blocks"),
            Self::Overlaps(id) => write!(f, "its blocks overlap those of {id}"),
            Self::ExpectedEncrypted => f.write_str(
                "it should be encrypted and is not (replaced while the store was locked?)",
            ),
            Self::ExpectedPlain => f.write_str("it is encrypted, and its key is not in the store"),
        }
    }
}
