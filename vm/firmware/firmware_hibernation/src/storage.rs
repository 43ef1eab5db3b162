//! The store of the token and the record.

use serde::Serialize;
use std::error::Error;
use std::fmt;
use std::io;
use std::ops::ControlFlow;

/// One of the two files in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HibernationFile {
    /// The hibernation token: eight bytes that tell the next start what to do.
    Token,
    /// The record: the firmware image and what the firmware was given.
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

/// The state of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreState {
    /// The number of changes of the store. Wraps.
    pub sequence: u32,
    /// The size of the store in bytes.
    pub size: u64,
    /// The free space in bytes.
    pub free: u64,
    /// The length of the longest contiguous free space in bytes.
    pub largest_gap: u64,
}

/// The classes of [`StorageError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageErrorKind {
    /// The stored data is damaged.
    Corrupt,
    /// The store is encrypted and its key was not given.
    Locked,
    /// The store is read-only.
    ReadOnly,
    /// There is not enough contiguous free space in the store.
    NoSpace,
    /// The host's disk that holds the store is full.
    DiskFull,
    /// Every file that may have the record has other data.
    NoPlace,
    /// The device, or the connection to it, failed.
    Io,
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct StorageError {
    /// Its class.
    pub kind: StorageErrorKind,
    /// The cause.
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

/// What a [`StoreChange`] does to a file.
#[derive(Default)]
pub enum FileChange {
    /// The file stays as it is.
    #[default]
    Keep,
    /// The file is deleted if it exists.
    Delete,
    /// The file is created or replaced.
    Write {
        /// The length of the new content in bytes.
        len: u64,
        /// The new content, exactly `len` bytes. It is read during the commit, possibly on another thread.
        source: Box<dyn io::Read + Send>,
    },
}

/// A change to both files that happens as a whole or not at all.
#[derive(Default)]
pub struct StoreChange {
    /// The change to the token.
    pub token: FileChange,
    /// The change to the record.
    pub record: FileChange,
}

/// A store of the two files. Calls block; do not use it in a task of an executor.
pub trait Storage: Send {
    /// The state of the store.
    fn state(&mut self) -> Result<StoreState, StorageError>;
    /// The length of a file in bytes, or `None` if it does not exist.
    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError>;
    /// The first `len` bytes of a file that exists, or all of it if it is shorter.
    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError>;
    /// Passes the content of a file to `sink`, from the start and in pieces of any length, until it breaks.
    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError>;
    /// Makes the change durable, or changes nothing. A change of nothing makes durable what was read before.
    fn commit(&mut self, change: StoreChange) -> Result<(), StorageError>;
    /// Where the record is, or will be written. The data of other programs are never replaced.
    fn record_place(&mut self) -> Result<RecordPlace, StorageError>;
}

/// Where the record is, or will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPlace {
    /// The number of the file; `None` if there is no record and every file that may have it has other data.
    pub file: Option<u32>,
    /// What the usual file has, if that is not the record.
    pub occupant: Option<Occupant>,
}

/// Data that is not a record, in a file that may have the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    /// The number of the file.
    pub file: u32,
    /// What it seems to be, in words.
    pub what: String,
}

impl StoreChange {
    /// The files with their changes.
    pub fn into_files(self) -> [(HibernationFile, FileChange); 2] {
        [
            (HibernationFile::Token, self.token),
            (HibernationFile::Record, self.record),
        ]
    }

    /// Changes the token only.
    pub fn of_token(token: FileChange) -> Self {
        let record = FileChange::Keep;
        Self { token, record }
    }

    /// Changes the record only.
    pub fn of_record(record: FileChange) -> Self {
        let token = FileChange::Keep;
        Self { token, record }
    }

    /// Deletes both files.
    pub fn delete_both() -> Self {
        let (token, record) = (FileChange::Delete, FileChange::Delete);
        Self { token, record }
    }
}
