//! Asking the broker.

use crate::blocking::BlockingClient;
use crate::request::BrokerError;
use crate::request::Changes;
use crate::request::FileContent;
use crate::request::Request;
use crate::request::StoreInfo;
use mesh::BoundedSender;
use mesh::Rpc;
use mesh::saved_state::SavedState;
use std::io;
use vmgs::FileId;
use vmgs::FileInfo;
use vmgs::Key;
use vmgs::Overwrite;
use vmgs::Protection;
use vmgs::ProvisioningMarker;

/// A handle to a broker's store. Clones are equals.
///
/// A future that is dropped before the request's turn comes withdraws it.
#[derive(Debug, Clone)]
pub struct VmgsClient {
    requests: BoundedSender<Request>,
}

impl VmgsClient {
    pub(crate) fn new(requests: BoundedSender<Request>) -> Self {
        Self { requests }
    }

    /// This handle, for a thread without an executor.
    pub fn blocking(self) -> BlockingClient {
        BlockingClient::new(self)
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

    /// What there is to know about the store.
    pub async fn info(&self) -> Result<StoreInfo, BrokerError> {
        self.call(Request::Info, ()).await
    }

    /// Bytes of the store's device.
    pub async fn device_size(&self) -> Result<u64, BrokerError> {
        self.call(Request::DeviceSize, ()).await
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

    /// Passes a file's content to `sink`, on the broker's thread, and returns its length. See
    /// [`vmgs::Vmgs::read_to`] for what a failure means.
    pub async fn read_to(
        &self,
        id: FileId,
        sink: Box<dyn io::Write + Send>,
    ) -> Result<u64, BrokerError> {
        self.call(Request::ReadTo, (id, sink)).await
    }

    /// Replaces or adds a file.
    pub async fn write(
        &self,
        id: FileId,
        protection: Protection,
        content: impl Into<FileContent>,
    ) -> Result<(), BrokerError> {
        self.commit(Changes::new().write(id, protection, content))
            .await
    }

    /// Stores the record of who formatted the store, unencrypted.
    pub async fn write_provisioning_marker(
        &self,
        marker: &ProvisioningMarker,
    ) -> Result<(), BrokerError> {
        let content = marker.to_bytes()?;
        self.write(FileId::PROVISIONING_MARKER, Protection::Plain, content)
            .await
    }

    /// Removes a file, which must exist.
    pub async fn delete_file(&self, id: FileId) -> Result<(), BrokerError> {
        self.commit(Changes::new().delete(id)).await
    }

    /// Makes all of the changes in one commit, durable when this returns.
    pub async fn commit(&self, changes: Changes) -> Result<(), BrokerError> {
        self.call(Request::Commit, changes).await
    }

    /// Gives a file another id.
    pub async fn move_file(
        &self,
        from: FileId,
        to: FileId,
        overwrite: Overwrite,
    ) -> Result<(), BrokerError> {
        self.call(Request::Move, (from, to, overwrite)).await
    }

    /// Makes everything durable that was written. Changes already are when they return.
    pub async fn flush(&self) -> Result<(), BrokerError> {
        self.call(Request::Flush, ()).await
    }

    /// Unlocks the store.
    pub async fn unlock(&self, key: Key) -> Result<(), BrokerError> {
        self.call(Request::Unlock, key).await
    }

    /// Replaces the store's keys by this one; a store without keys gets its first.
    pub async fn update_key(&self, key: Key) -> Result<(), BrokerError> {
        self.call(Request::UpdateKey, key).await
    }

    /// Replaces every key that the store made; see [`vmgs::Vmgs::rekey`].
    pub async fn rekey(&self) -> Result<Vec<FileId>, BrokerError> {
        self.call(Request::Rekey, ()).await
    }

    /// Saves the state of the broker, keys included, and seals the store.
    pub async fn save(&self) -> Result<SavedState, BrokerError> {
        self.call(Request::Save, ()).await
    }

    /// Allows changes again, for when what the state was saved for did not happen. The saved state is
    /// not to be used any more.
    pub async fn unseal(&self) -> Result<(), BrokerError> {
        self.call(Request::Unseal, ()).await
    }
}
