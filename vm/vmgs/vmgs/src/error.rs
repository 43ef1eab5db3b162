//! What can go wrong.

use crate::finding::Damage;
use crate::header::HeaderError;
use std::io;
use vmgs_format::FileId;
use vmgs_format::Version;

/// Why an operation on a store failed.
///
/// [`Error::kind`] sorts these into the few classes that callers act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read failed.
    #[error("reading {len} bytes at byte {offset} of the store failed")]
    Read {
        /// Where.
        offset: u64,
        /// How much.
        len: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A write failed.
    #[error("writing {len} bytes at byte {offset} of the store failed")]
    Write {
        /// Where.
        offset: u64,
        /// How much.
        len: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A flush failed.
    #[error("flushing the store failed")]
    Flush(#[source] io::Error),
    /// The device cannot hold a store.
    #[error("a device of {sector_count} sectors of {sector_size} bytes cannot hold a store")]
    Geometry {
        /// Bytes in a sector.
        sector_size: u32,
        /// Sectors.
        sector_count: u64,
    },
    /// Both headers are zero: nothing was ever stored here.
    #[error("the store is empty: both headers are zero")]
    Empty,
    /// A store of the old partitioned layout.
    #[error("the store has the version 1 format (a partition table), which is not supported")]
    V1Format,
    /// No header is a store's.
    #[error("no valid header: the first: {first}; the second: {second}")]
    InvalidFormat {
        /// What is wrong with header 0.
        first: HeaderError,
        /// What is wrong with header 1.
        second: HeaderError,
    },
    /// A header is sound, but of a version this implementation does not know.
    #[error("the store has format version {0}, which is not supported")]
    UnsupportedVersion(Version),
    /// Both headers are sound, and neither is the other's successor.
    #[error("the headers' sequence numbers {first} and {second} do not follow each other")]
    SequenceGap {
        /// Header 0's.
        first: u32,
        /// Header 1's.
        second: u32,
    },
    /// A header was written when the store was on a disk with sectors of another size, and it is newer
    /// than those found where they belong.
    #[error(
        "a newer header (sequence {sequence}) is where disks with {sector_size}-byte sectors have it: \
         the store was last written on such a disk"
    )]
    SectorSizeChanged {
        /// The other sector size.
        sector_size: u32,
        /// The newer header's sequence number.
        sequence: u32,
    },
    /// A header is damaged, and the options ask for two sound ones.
    #[error("header {slot} is damaged")]
    DamagedHeader {
        /// Which.
        slot: usize,
        /// How.
        #[source]
        source: HeaderError,
    },
    /// The store is of a version that is only read.
    #[error("the store has format version {0}, which is only read; upgrade it first")]
    OldVersion(Version),
    /// The id is not a file's.
    #[error("{0} is not the id of a file that can be read or written")]
    InvalidFileId(FileId),
    /// There is no such file.
    #[error("the store has no file {0}")]
    NotAllocated(FileId),
    /// The file's entry contradicts the store.
    #[error("file {id} is damaged: {damage}")]
    DamagedFile {
        /// Which.
        id: FileId,
        /// How.
        damage: Damage,
    },
    /// The content of an encrypted file, or of the extended file table, is not what was written.
    #[error("file {0} does not decrypt: its content or its key is not what was written")]
    Authentication(FileId),
    /// The content is more than the caller allows to be read into memory.
    #[error("file {id} has {size} bytes, more than the {limit} that may be read at once")]
    TooLargeToRead {
        /// Which.
        id: FileId,
        /// Its bytes.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// There is no memory for the content.
    #[error("no memory for the {size} bytes of file {id}")]
    OutOfMemory {
        /// Which.
        id: FileId,
        /// Its bytes.
        size: u64,
    },
    /// Where the content was to go could not take it.
    #[error("passing on the content of file {id} failed")]
    Sink {
        /// Which.
        id: FileId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Where new content was to come from could not give it.
    #[error("getting {len} bytes of new content for file {id} failed")]
    Source {
        /// Which.
        id: FileId,
        /// The bytes announced.
        len: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be that large.
    #[error("{size} bytes are more than file {id} can have")]
    FileTooLarge {
        /// Which.
        id: FileId,
        /// The bytes wanted.
        size: u64,
    },
    /// No run of free blocks is long enough.
    #[error("no space: no {blocks} contiguous blocks are free for file {id}")]
    NoSpace {
        /// Which.
        id: FileId,
        /// The blocks wanted.
        blocks: u32,
    },
    /// Plain content would replace encrypted content.
    #[error("file {0} is encrypted; it is not replaced by unencrypted content")]
    OverwriteEncrypted(FileId),
    /// A move's destination exists.
    #[error("file {0} exists already")]
    DestinationExists(FileId),
    /// A commit names a file twice.
    #[error("the commit names file {0} more than once")]
    NamedTwice(FileId),
    /// The store is locked, and the operation needs its key.
    #[error("the store is encrypted and locked")]
    Locked,
    /// The key opens neither of the store's records.
    #[error("the key does not open the store")]
    WrongKey,
    /// The key opens a record, but what that holds does not open the store, which has another key. Some
    /// writers leave such a record behind if replacing a key is interrupted.
    #[error(
        "the key opens key record {record}, but not the store: the record is from before another key \
         was in use, or the extended file table is damaged; try the store's other key"
    )]
    StaleKey {
        /// Which record.
        record: usize,
    },
    /// The store has no keys.
    #[error("the store is not encrypted")]
    NotEncrypted,
    /// The store has keys already.
    #[error("the store is encrypted already")]
    AlreadyEncrypted,
    /// The store has as many keys as it can have.
    #[error("the store has two keys already")]
    KeysFull,
    /// A key of nothing but zeros.
    #[error("a key of all zeros is not acceptable")]
    ZeroKey,
    /// Removing the last key would make files unreadable.
    #[error("file {0} is encrypted and would become unreadable without a key")]
    EncryptedFilesRemain(FileId),
    /// The store was opened for reading only.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// An earlier commit failed after its header may have reached the medium.
    #[error("an earlier commit ended in doubt; the store must be reloaded before it is changed")]
    InDoubt,
    /// The operating system has no randomness to give.
    #[error("no randomness for keys: {0}")]
    Randomness(String),
    /// A saved state is not one of this device.
    #[error("the saved state is invalid: {0}")]
    InvalidSavedState(&'static str),
    /// The provisioning marker could not be encoded.
    #[error("encoding the provisioning marker failed")]
    Json(#[source] serde_json::Error),
}

/// The classes of [`Error`] that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The file is not there.
    Missing,
    /// The store was never formatted.
    Empty,
    /// What is stored is damaged.
    Corrupt,
    /// The store has a format that is not supported, or needs a disk with other sectors. Its content may
    /// be fine.
    Unsupported,
    /// A key is needed, or is not the right one.
    Locked,
    /// The device failed.
    Io,
    /// There is no room, in the store or under it.
    NoSpace,
    /// The request makes no sense or is refused.
    Refused,
}

impl Error {
    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        use std::io::ErrorKind as Io;
        match self {
            // The file that holds the store has holes, and its file system is full.
            Self::Write { source, .. } | Self::Flush(source)
                if matches!(source.kind(), Io::StorageFull | Io::QuotaExceeded) =>
            {
                ErrorKind::NoSpace
            }
            Self::Read { .. }
            | Self::Write { .. }
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
            | Self::SequenceGap { .. }
            | Self::DamagedHeader { .. }
            | Self::DamagedFile { .. }
            | Self::Authentication(_) => ErrorKind::Corrupt,
            Self::NotAllocated(_) => ErrorKind::Missing,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
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
            | Self::EncryptedFilesRemain(_)
            | Self::ReadOnly
            | Self::InvalidSavedState(_)
            | Self::Json(_) => ErrorKind::Refused,
        }
    }
}
