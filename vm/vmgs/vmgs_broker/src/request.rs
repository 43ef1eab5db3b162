//! What clients ask the broker.

use mesh::Rpc;
use mesh::saved_state::SavedState;
use std::io;
use vmgs::FileId;
use vmgs::FileInfo;
use vmgs::Finding;
use vmgs::Key;
use vmgs::Overwrite;
use vmgs::Protection;
use vmgs::ProvisioningReason;

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] vmgs::Error),
    /// The store was saved, and is not to be changed any more.
    #[error("the store is sealed: its state was saved")]
    Sealed,
    /// The broker is gone. The request may have been carried out, but was not answered.
    #[error("the broker of the store is gone")]
    Offline(#[from] mesh::RpcError),
}

impl BrokerError {
    /// Whether the error is that a file does not exist.
    pub fn is_not_allocated(&self) -> bool {
        matches!(self, Self::Store(vmgs::Error::NotAllocated(_)))
    }
}

/// Where the new content of a file comes from. It travels to the broker without being copied.
pub enum FileContent {
    /// Memory.
    Bytes(Vec<u8>),
    /// A stream of `len` bytes, which the broker reads while it writes.
    Stream {
        /// How many bytes.
        len: u64,
        /// The stream.
        source: Box<dyn io::Read + Send>,
    },
}

impl From<Vec<u8>> for FileContent {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// Changes to several files that happen together, or not at all.
#[derive(Default)]
#[must_use = "changes do nothing until they are committed"]
pub struct Changes {
    pub(crate) writes: Vec<(FileId, Protection, FileContent)>,
    pub(crate) deletes: Vec<(FileId, IfAbsent)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfAbsent {
    Fail,
    Ignore,
}

impl Changes {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces or adds a file.
    pub fn write(
        mut self,
        id: FileId,
        protection: Protection,
        content: impl Into<FileContent>,
    ) -> Self {
        self.writes.push((id, protection, content.into()));
        self
    }

    /// Removes a file, which must exist.
    pub fn delete(mut self, id: FileId) -> Self {
        self.deletes.push((id, IfAbsent::Fail));
        self
    }

    /// Removes a file if it exists.
    pub fn delete_if_present(mut self, id: FileId) -> Self {
        self.deletes.push((id, IfAbsent::Ignore));
        self
    }
}

/// What there is to know about a store without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// Bytes of the device.
    pub device_size: u64,
    /// The sequence number of the header in force: it grows with every change, and wraps.
    pub sequence: u32,
    /// Bytes in free blocks.
    pub free_size: u64,
    /// Bytes in the longest run of free blocks.
    pub largest_gap: u64,
    /// Whether the store has keys.
    pub encrypted: bool,
    /// Whether it has keys and none was given.
    pub locked: bool,
    /// Why the store was formatted, if that was done when it was opened for this broker.
    pub provisioned: Option<ProvisioningReason>,
    /// Whether changes fail because the state was saved.
    pub sealed: bool,
    /// The files and tables.
    pub files: Vec<(FileId, FileInfo)>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

type Call<I, O> = Rpc<I, Result<O, BrokerError>>;

/// A request. Requests stay inside the process; their order here means nothing.
pub(crate) enum Request {
    FileInfo(Call<FileId, FileInfo>),
    Info(Call<(), StoreInfo>),
    DeviceSize(Call<(), u64>),
    Read(Call<FileId, Vec<u8>>),
    ReadRange(Call<(FileId, u64, usize), Vec<u8>>),
    ReadTo(Call<(FileId, Box<dyn io::Write + Send>), u64>),
    Commit(Call<Changes, ()>),
    Move(Call<(FileId, FileId, Overwrite), ()>),
    Flush(Call<(), ()>),
    Unlock(Call<Key, ()>),
    UpdateKey(Call<Key, ()>),
    Rekey(Call<(), Vec<FileId>>),
    Save(Call<(), SavedState>),
    Unseal(Call<(), ()>),
}
