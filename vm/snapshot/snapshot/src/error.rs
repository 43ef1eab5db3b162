use crate::ManifestError;
use std::io;
use std::path::PathBuf;

/// Why a snapshot cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no directory of this name.
    #[error("there is no snapshot at {}", path.display())]
    NoSnapshot {
        /// The directory.
        path: PathBuf,
    },
    /// A file is not there.
    #[error("the snapshot is incomplete: there is no {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The host cannot read a file.
    #[error("failed to {operation} {}", path.display())]
    Io {
        /// What failed.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// A file has another length than the manifest says.
    #[error(
        "{} is damaged: it has {found} bytes instead of {expected}; copy the snapshot again, or save the VM again",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// What the manifest says.
        expected: u64,
    },
    /// A file is not what was written.
    #[error("{} is damaged: {kind}; copy the snapshot again, or save the VM again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        kind: DamageKind,
    },
    /// The manifest cannot be used.
    #[error("the manifest {} cannot be used", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ManifestError,
    },
}

/// How a file is damaged.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DamageKind {
    /// The digest of the whole file is another.
    #[error("its digest is not the manifest's")]
    Digest,
    /// The digest of a part of guest RAM is another.
    #[error("the digest of its chunk {chunk}, at byte {offset}, is not that of the index")]
    Chunk {
        /// The chunk's number.
        chunk: u64,
        /// Its first byte in the file.
        offset: u64,
    },
    /// It does not begin, or end, as such a file does.
    #[error("it is not such a file")]
    Kind,
    /// It belongs to another snapshot.
    #[error("it belongs to another snapshot")]
    OtherSnapshot,
    /// What it says of guest RAM is not what the manifest says.
    #[error("it describes other guest memory than the manifest")]
    OtherMemory,
}

/// Why a snapshot was not written. There is none, and nothing of one is left.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is something of this name.
    #[error("{} exists; a snapshot is never overwritten: name another directory, or remove it first", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// The name is not that of a new directory.
    #[error("{} cannot be the name of a new directory", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// The host failed.
    #[error("failed to {operation} {}", path.display())]
    Io {
        /// What failed.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// Guest RAM cannot be read.
    #[error("failed to read guest memory at {gpa:#x}")]
    Memory {
        /// Where.
        gpa: u64,
        /// Why.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
    /// The host has no random bytes.
    #[error("cannot get random bytes from the host")]
    Random(#[from] getrandom::Error),
    /// Something is larger than a reader accepts.
    #[error("the snapshot's {what} has {len} bytes; the limit is {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },
}
