//! Where the token and the record are kept.

use serde::Serialize;
use std::error::Error;
use std::fmt;
use std::io;
use std::ops::ControlFlow;

/// One of the two files that hibernation keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HibernationFile {
    /// Eight bytes: what the next start has to know.
    Token,
    /// The firmware image, and what the firmware was given.
    Record,
}

impl fmt::Display for HibernationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "hibernation token",
            Self::Record => "stored firmware",
        })
    }
}

/// How a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreState {
    /// How often the store was changed. Wraps.
    pub sequence: u32,
    /// Bytes of the whole store.
    pub size: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes in the longest free run.
    pub largest_gap: u64,
}

/// Why the store did not do as asked, in the classes that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageErrorKind {
    /// What is stored is damaged.
    Corrupt,
    /// The store is encrypted, and its key was not given.
    Locked,
    /// The store cannot be changed.
    ReadOnly,
    /// No free run is long enough.
    NoSpace,
    /// The device or the connection to it failed.
    Io,
}

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct StorageError {
    /// The class.
    pub kind: StorageErrorKind,
    /// What the store said.
    pub source: Box<dyn Error + Send + Sync>,
}

impl StorageError {
    /// An error of this class.
    pub fn new(kind: StorageErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            source: source.into(),
        }
    }
}

/// What becomes of a file in a [`Change`].
#[derive(Default)]
pub enum FileChange {
    /// Nothing.
    #[default]
    Keep,
    /// It is deleted if it exists.
    Delete,
    /// It is replaced or added.
    Write {
        /// Bytes of the new content.
        len: u64,
        /// The new content, exactly so many bytes. It is read while the change is under way, and may be
        /// read on another thread.
        source: Box<dyn io::Read + Send>,
    },
}

/// Changes to both files that happen together, or not at all.
#[derive(Default)]
pub struct Change {
    /// What becomes of the token.
    pub token: FileChange,
    /// What becomes of the record.
    pub record: FileChange,
}

/// A place that keeps the two files. Calls wait; they are not for tasks of an executor.
pub trait Storage: Send {
    /// How the store is.
    fn state(&mut self) -> Result<StoreState, StorageError>;
    /// The length of a file, or `None` if it does not exist.
    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError>;
    /// The first `len` bytes of a file that exists, or all of it if it is shorter.
    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError>;
    /// Passes a file's content on, from the start, in pieces of any length, until `sink` says that it
    /// has enough.
    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError>;
    /// Makes the changes, durable when this returns, or none of them.
    fn commit(&mut self, change: Change) -> Result<(), StorageError>;
}

impl Change {
    /// The files, and what becomes of them.
    pub fn into_files(self) -> [(HibernationFile, FileChange); 2] {
        [
            (HibernationFile::Token, self.token),
            (HibernationFile::Record, self.record),
        ]
    }

    /// The token deleted, the record kept.
    pub fn delete_token() -> Self {
        Self {
            token: FileChange::Delete,
            record: FileChange::Keep,
        }
    }

    /// The token replaced, the record kept.
    pub fn write_token(bytes: [u8; 8]) -> Self {
        Self {
            token: FileChange::Write {
                len: bytes.len() as u64,
                source: Box::new(io::Cursor::new(bytes)),
            },
            record: FileChange::Keep,
        }
    }

    /// The record replaced, the token kept.
    pub fn write_record(len: u64, source: Box<dyn io::Read + Send>) -> Self {
        Self {
            token: FileChange::Keep,
            record: FileChange::Write { len, source },
        }
    }

    /// The record deleted, the token kept.
    pub fn delete_record() -> Self {
        Self {
            token: FileChange::Keep,
            record: FileChange::Delete,
        }
    }

    /// Both deleted.
    pub fn delete_both() -> Self {
        Self {
            token: FileChange::Delete,
            record: FileChange::Delete,
        }
    }
}
