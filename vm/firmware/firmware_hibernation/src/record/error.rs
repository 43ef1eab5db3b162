//! Errors of reading a record.

use crate::image::TargetError;
use crate::storage::StorageError;
use platform_digest::ViewDecodeError;

/// Why stored bytes are not a valid record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store reports damage.
    #[error("the store reports that it is damaged")]
    Damaged(#[source] StorageError),
    /// It does not start with the magic number.
    #[error("it is not a firmware record")]
    NotARecord,
    /// The version or a flag is unknown.
    #[error("it is a record of version {version} with flags {flags:#x}, which is not supported")]
    Unsupported {
        /// The version.
        version: u16,
        /// The flags.
        flags: u32,
    },
    /// The header is damaged.
    #[error("its header is damaged: {0}")]
    Header(&'static str),
    /// The section table is damaged.
    #[error("its section table is damaged: {0}")]
    Table(&'static str),
    /// Its length is not that in its header.
    #[error("it has {found} bytes instead of {expected}")]
    Length {
        /// The length in the header, in bytes.
        expected: u64,
        /// The length of the file, in bytes.
        found: u64,
    },
    /// The digest of a section does not match.
    #[error("the digest of its section {0} is wrong")]
    SectionDigest(String),
    /// A section changed between two reads.
    #[error("its section {0} changed while it was being read")]
    Changed(String),
    /// The description of the machine cannot be decoded.
    #[error("its description of the machine is damaged")]
    Platform(#[source] ViewDecodeError),
    /// There is no memory for a section.
    #[error("out of memory for the {len} bytes of its section {name}")]
    OutOfMemory {
        /// The section.
        name: String,
        /// Its length.
        len: u64,
    },
    /// The image could not be written to where it goes.
    #[error("the image could not be written")]
    Target(#[source] TargetError),
}
