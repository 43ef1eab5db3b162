//! What clients ask the broker.

use mesh::BoundedSender;
use mesh::Rpc;
use mesh::saved_state::SavedState;
use vmgs::Commit;
use vmgs::FileId;
use vmgs::FileInfo;
use vmgs::Finding;
use vmgs::Key;
use vmgs::ProvisioningReason;

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] vmgs::Error),
    /// The store's state was saved, so the store must not change any more.
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

/// The state of a store, as far as it is known without reading files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// Bytes of the device.
    pub device_size: u64,
    /// The sequence number of the active header: it grows with every change, and wraps.
    pub sequence: u32,
    /// Bytes in free blocks.
    pub free_size: u64,
    /// Bytes in the longest run of free blocks.
    pub largest_gap: u64,
    /// Whether the store has keys.
    pub encrypted: bool,
    /// Whether the store has keys and was not unlocked.
    pub locked: bool,
    /// Why the store was formatted, if it was formatted when it was opened for this broker.
    pub provisioned: Option<ProvisioningReason>,
    /// Whether changes fail because the state was saved.
    pub sealed: bool,
    /// The files and tables in the store.
    pub files: Vec<(FileId, FileInfo)>,
    /// Damage and oddities that were found when the store was opened.
    pub findings: Vec<Finding>,
}

type Call<I, O> = Rpc<I, Result<O, BrokerError>>;

/// A file's content that is to be passed on in chunks.
pub(crate) struct ReadChunks {
    pub(crate) id: FileId,
    pub(crate) chunks: BoundedSender<Vec<u8>>,
}

/// A request. Requests stay inside the process.
pub(crate) enum Request {
    FileInfo(Call<FileId, FileInfo>),
    Info(Call<(), StoreInfo>),
    Read(Call<FileId, Vec<u8>>),
    ReadRange(Call<(FileId, u64, usize), Vec<u8>>),
    ReadChunks(Call<ReadChunks, ()>),
    Commit(Call<Commit<'static>, ()>),
    Reserve(Call<(FileId, u64), ()>),
    Unlock(Call<Key, ()>),
    UpdateKey(Call<Key, ()>),
    Save(Call<(), SavedState>),
    Unseal(Call<(), ()>),
}
