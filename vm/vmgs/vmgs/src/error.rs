//! Errors of the store.

use crate::damage::Damage;
use crate::damage::HeaderError;
use std::io;
use std::path::PathBuf;
use vmgs_format::FileId;
use vmgs_format::Version;

/// Why an operation on a store failed.
///
/// [`Error::kind`] groups the errors into the classes that callers act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device failed to read.
    #[error("reading {len} bytes at byte {offset} of the store failed")]
    Read {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: usize,
        /// The device's error.
        #[source]
        source: io::Error,
    },
    /// The device failed to write.
    #[error("writing {len} bytes at byte {offset} of the store failed")]
    Write {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// The device's error.
        #[source]
        source: io::Error,
    },
    /// The device failed to flush.
    #[error("flushing the store failed")]
    Flush(#[source] io::Error),
    /// The host's disk with the store has no space.
    #[error("the host's disk is full: it has no {needed} bytes for the VMGS store{}", in_file(path.as_ref()))]
    DiskFull {
        /// The file with the store, if it is in one.
        path: Option<PathBuf>,
        /// How many bytes are needed.
        needed: u64,
        /// The device's error.
        #[source]
        source: io::Error,
    },
    /// The file with the store may not be as long as it is: a limit of the process or the file system.
    #[error(
        "writing {len} bytes at byte {offset} of the store{} failed: that is beyond the process's limit on the size of \
         files (`ulimit -f`)",
        in_file(path.as_ref())
    )]
    FileSizeLimit {
        /// The file with the store, if it is in one.
        path: Option<PathBuf>,
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// The device's error.
        #[source]
        source: io::Error,
    },
    /// The device cannot hold a store.
    #[error("a device of {sector_count} sectors of {sector_size} bytes cannot hold a store")]
    Geometry {
        /// Sector size in bytes.
        sector_size: u32,
        /// Number of sectors.
        sector_count: u64,
    },
    /// Both headers are zero: the device was never formatted.
    #[error("the store is empty: both headers are zero")]
    Empty,
    /// Both headers are zero, but the device was in use: it holds something else than a store, or a store whose
    /// headers are lost.
    #[error(
        "both headers of the store are zero, but there is data at offset {offset:#x}: not formatting it"
    )]
    NotBlank {
        /// Offset of the data in bytes.
        offset: u64,
    },
    /// The device has the partition table of the version 1 format.
    #[error("the store has the version 1 format (a partition table), which is not supported")]
    V1Format,
    /// Neither header is valid.
    #[error("no valid header: header 0: {first}; header 1: {second}")]
    InvalidFormat {
        /// Why header 0 is not valid.
        first: HeaderError,
        /// Why header 1 is not valid.
        second: HeaderError,
    },
    /// A header is intact, but its version is not supported.
    #[error("the store has format version {0}, which is not supported")]
    UnsupportedVersion(Version),
    /// Both headers are valid, but neither is the successor of the other.
    #[error("the sequence numbers {first} and {second} of the headers are not consecutive")]
    SequenceGap {
        /// Sequence number of header 0.
        first: u32,
        /// Sequence number of header 1.
        second: u32,
    },
    /// A header at the place for disks of another sector size is newer than those at the place for this
    /// disk.
    #[error(
        "a newer header (sequence {sequence}) is at the place for disks with {sector_size}-byte \
         sectors: the store was last written on such a disk"
    )]
    SectorSizeChanged {
        /// The other sector size in bytes.
        sector_size: u32,
        /// Sequence number of the newer header.
        sequence: u32,
    },
    /// A header is damaged, and the options require two valid headers.
    #[error("header {slot} is damaged")]
    DamagedHeader {
        /// Slot of the header, 0 or 1.
        slot: usize,
        /// How it is damaged.
        #[source]
        source: HeaderError,
    },
    /// The version of the store can be read, but not written.
    #[error("the store has format version {0}, which can only be read; upgrade it first")]
    OldVersion(Version),
    /// The id is that of a table, or outside the tables.
    #[error("{0} is not the id of a file that can be read or written")]
    InvalidFileId(FileId),
    /// The file does not exist.
    #[error("the store has no file {0}")]
    NotAllocated(FileId),
    /// The file's entry in the tables is inconsistent.
    #[error("file {id} is damaged: {damage}")]
    DamagedFile {
        /// The file.
        id: FileId,
        /// How it is damaged.
        damage: Damage,
    },
    /// An encrypted file, or the extended file table, does not match its tag.
    #[error("file {0} does not decrypt: its content or its key is not what was written")]
    Authentication(FileId),
    /// The content is longer than the limit for reading into memory.
    #[error("file {id} has {size} bytes, more than the {limit} that may be read at once")]
    TooLargeToRead {
        /// The file.
        id: FileId,
        /// Length of its content in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Memory for the content cannot be allocated.
    #[error("cannot allocate {size} bytes to read file {id}")]
    OutOfMemory {
        /// The file.
        id: FileId,
        /// Length of its content in bytes.
        size: u64,
    },
    /// The receiver of the content failed.
    #[error("copying the content of file {id} to its destination failed")]
    Sink {
        /// The file.
        id: FileId,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// The source of new content failed.
    #[error("reading {len} bytes of new content for file {id} failed")]
    Source {
        /// The file.
        id: FileId,
        /// Length of the new content in bytes.
        len: u64,
        /// The error of the source.
        #[source]
        source: io::Error,
    },
    /// The new content is longer than a file can be.
    #[error("file {id} cannot have {size} bytes")]
    FileTooLarge {
        /// The file.
        id: FileId,
        /// Length of the new content in bytes.
        size: u64,
    },
    /// A change would take blocks that are [reserved](crate::Vmgs::reserve) for other files.
    #[error("no space for file {id}: {reserved} bytes of the store are kept free for other files")]
    Reserved {
        /// The file.
        id: FileId,
        /// How many bytes are kept free.
        reserved: u64,
    },
    /// There is no run of free blocks that is long enough.
    #[error("no space: no {blocks} contiguous blocks are free for file {id}")]
    NoSpace {
        /// The file.
        id: FileId,
        /// Number of contiguous blocks that are needed.
        blocks: u32,
    },
    /// Unencrypted content would replace an encrypted file.
    #[error("file {0} is encrypted and cannot be replaced by unencrypted content")]
    OverwriteEncrypted(FileId),
    /// The destination of a move exists.
    #[error("file {0} exists already")]
    DestinationExists(FileId),
    /// A commit changes a file more than once.
    #[error("the commit changes file {0} more than once")]
    NamedTwice(FileId),
    /// The operation needs the store's key, and the store is locked.
    #[error("the store is encrypted and locked")]
    Locked,
    /// The key opens no key record of the store.
    #[error("the key does not open the store")]
    WrongKey,
    /// The key opens a key record, but the metadata key in it does not decrypt the extended file table.
    /// Some writers leave such a record behind if replacing a key is interrupted.
    #[error(
        "the key opens key record {record}, but not the store: the record is out of date, or the \
         extended file table is damaged; try the store's other key"
    )]
    StaleKey {
        /// The key record, 0 or 1.
        record: usize,
    },
    /// The store has no keys.
    #[error("the store is not encrypted")]
    NotEncrypted,
    /// The store already has a key.
    #[error("the store is already encrypted")]
    AlreadyEncrypted,
    /// The store has the maximum number of keys.
    #[error("the store already has two keys")]
    KeysFull,
    /// The new key is all zero.
    #[error("a key of all zeros cannot be used")]
    ZeroKey,
    /// The store was opened read-only.
    #[error("the store is open read-only")]
    ReadOnly,
    /// An earlier commit failed while it wrote or flushed the header, and may have taken effect.
    #[error(
        "an earlier commit failed and may have taken effect; reload the store before changing it"
    )]
    InDoubt,
    /// The operating system provides no random bytes.
    #[error("getting random bytes for keys and nonces failed: {0}")]
    Randomness(String),
    /// The saved state is inconsistent, or does not fit the device.
    #[error("the saved state is invalid: {0}")]
    InvalidSavedState(&'static str),
    /// The provisioning marker could not be encoded.
    #[error("encoding the provisioning marker failed")]
    Json(#[source] serde_json::Error),
}

/// The classes of [`Error`] that callers distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The file does not exist.
    Missing,
    /// The device was never formatted.
    Empty,
    /// The store or the file is damaged.
    Corrupt,
    /// The format is not supported, or requires a disk with another sector size. The content may be
    /// intact.
    Unsupported,
    /// A key is needed, or the key is wrong.
    Locked,
    /// The device failed.
    Io,
    /// The store is full.
    NoSpace,
    /// The host's disk that holds the store is full.
    DiskFull,
    /// The request is invalid or is refused.
    Refused,
}

impl Error {
    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DiskFull { .. } => ErrorKind::DiskFull,
            Self::Read { .. }
            | Self::Write { .. }
            | Self::FileSizeLimit { .. }
            | Self::Flush(_)
            | Self::Sink { .. }
            | Self::Source { .. }
            | Self::InDoubt
            | Self::OutOfMemory { .. }
            | Self::Randomness(_) => ErrorKind::Io,
            Self::Empty => ErrorKind::Empty,
            Self::V1Format
            | Self::UnsupportedVersion(_)
            | Self::OldVersion(_)
            | Self::SectorSizeChanged { .. } => ErrorKind::Unsupported,
            Self::InvalidFormat { .. }
            | Self::NotBlank { .. }
            | Self::SequenceGap { .. }
            | Self::DamagedHeader { .. }
            | Self::DamagedFile { .. }
            | Self::Authentication(_) => ErrorKind::Corrupt,
            Self::NotAllocated(_) => ErrorKind::Missing,
            Self::NoSpace { .. } | Self::Reserved { .. } => ErrorKind::NoSpace,
            Self::Locked | Self::WrongKey | Self::StaleKey { .. } => ErrorKind::Locked,
            Self::Geometry { .. }
            | Self::InvalidFileId(_)
            | Self::TooLargeToRead { .. }
            | Self::FileTooLarge { .. }
            | Self::OverwriteEncrypted(_)
            | Self::DestinationExists(_)
            | Self::NamedTwice(_)
            | Self::NotEncrypted
            | Self::AlreadyEncrypted
            | Self::KeysFull
            | Self::ZeroKey
            | Self::ReadOnly
            | Self::InvalidSavedState(_)
            | Self::Json(_) => ErrorKind::Refused,
        }
    }
}

/// ` in FILE`, if there is one.
fn in_file(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| format!(" in {}", path.display()))
}
