//! Asking the broker.

use crate::request::BrokerError;
use crate::request::ReadChunks;
use crate::request::Request;
use crate::request::StoreInfo;
use mesh::BoundedSender;
use mesh::Rpc;
use mesh::saved_state::SavedState;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use vmgs::Commit;
use vmgs::FileId;
use vmgs::FileInfo;
use vmgs::Key;
use vmgs::Protection;

/// Chunks that wait between the broker and a reader.
const CHUNKS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// A handle to a broker's store. Clones are handles to the same store.
///
/// Dropping the future of a request before its turn comes withdraws the request.
#[derive(Debug, Clone)]
pub struct VmgsClient {
    requests: BoundedSender<Request>,
}

impl VmgsClient {
    pub(crate) fn new(requests: BoundedSender<Request>) -> Self {
        Self { requests }
    }

    async fn call<I, O>(
        &self,
        wrap: impl FnOnce(Rpc<I, Result<O, BrokerError>>) -> Request,
        input: I,
    ) -> Result<O, BrokerError> {
        self.requests.call(wrap, input).await?
    }

    /// A file's sizes and protection.
    pub async fn file_info(&self, id: FileId) -> Result<FileInfo, BrokerError> {
        self.call(Request::FileInfo, id).await
    }

    /// The number of bytes of a file; `None` if there is no such file.
    pub async fn file_len(&self, id: FileId) -> Result<Option<u64>, BrokerError> {
        match self.file_info(id).await {
            Ok(info) => Ok(Some(info.valid_bytes)),
            Err(error) if error.is_not_allocated() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The state of the store.
    pub async fn info(&self) -> Result<StoreInfo, BrokerError> {
        self.call(Request::Info, ()).await
    }

    /// A file's content, of at most [`vmgs::READ_LIMIT`] bytes.
    pub async fn read(&self, id: FileId) -> Result<Vec<u8>, BrokerError> {
        self.call(Request::Read, id).await
    }

    /// Up to `len` bytes of a file's content from byte `offset`; fewer only at its end. See
    /// [`vmgs::Vmgs::read_range`] for what this costs with encrypted files.
    pub async fn read_range(
        &self,
        id: FileId,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, BrokerError> {
        self.call(Request::ReadRange, (id, offset, len)).await
    }

    /// Passes a file's content to `sink` in chunks, from the start, until `sink` breaks. See
    /// [`vmgs::Vmgs::read_to`] for what a failure means.
    pub async fn read_chunks(
        &self,
        id: FileId,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), BrokerError> {
        let (chunks, mut received) = mesh::bounded(CHUNKS);
        let reading = self.call(Request::ReadChunks, ReadChunks { id, chunks });
        // When this ends and drops the receiver, the broker stops reading.
        let passing_on = async move {
            while let Ok(chunk) = received.recv().await {
                if sink(&chunk).is_break() {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        };
        match futures::future::join(reading, passing_on).await {
            (_, ControlFlow::Break(())) => Ok(()),
            (read, ControlFlow::Continue(())) => read,
        }
    }

    /// Replaces or adds a file; durable when this returns.
    pub async fn write(
        &self,
        id: FileId,
        protection: Protection,
        content: Vec<u8>,
    ) -> Result<(), BrokerError> {
        self.commit(Commit::new().write(id, protection, content))
            .await
    }

    /// Makes all of the changes or none; durable when this returns.
    pub async fn commit(&self, commit: Commit<'static>) -> Result<(), BrokerError> {
        self.call(Request::Commit, commit).await
    }

    /// Reserves space for a file of `len` bytes, until the broker ends. See [`vmgs::Vmgs::reserve`].
    pub async fn reserve(&self, id: FileId, len: u64) -> Result<(), BrokerError> {
        self.call(Request::Reserve, (id, len)).await
    }

    /// Unlocks the store.
    pub async fn unlock(&self, key: Key) -> Result<(), BrokerError> {
        self.call(Request::Unlock, key).await
    }

    /// Replaces the store's keys by this one, or encrypts a store that has none.
    pub async fn update_key(&self, key: Key) -> Result<(), BrokerError> {
        self.call(Request::UpdateKey, key).await
    }

    /// Saves the state of the broker, keys included, and seals the store.
    pub async fn save(&self) -> Result<SavedState, BrokerError> {
        self.call(Request::Save, ()).await
    }

    /// Allows changes again, if the saved state will not be used.
    pub async fn unseal(&self) -> Result<(), BrokerError> {
        self.call(Request::Unseal, ()).await
    }
}
