//! Asking the broker from a thread without an executor.

use crate::client::VmgsClient;
use crate::request::BrokerError;
use crate::request::Changes;
use crate::request::FileContent;
use crate::request::StoreInfo;
use mesh::saved_state::SavedState;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::thread::Thread;
use vmgs::FileId;
use vmgs::FileInfo;
use vmgs::Key;
use vmgs::Overwrite;
use vmgs::Protection;
use vmgs::ProvisioningMarker;

/// A [`VmgsClient`] whose calls wait. Not for tasks: they would keep their executor from its work.
#[derive(Debug, Clone)]
pub struct BlockingClient(VmgsClient);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

impl BlockingClient {
    pub(crate) fn new(client: VmgsClient) -> Self {
        Self(client)
    }

    /// See [`VmgsClient::file_info`].
    pub fn file_info(&self, id: FileId) -> Result<FileInfo, BrokerError> {
        wait(self.0.file_info(id))
    }

    /// See [`VmgsClient::info`].
    pub fn info(&self) -> Result<StoreInfo, BrokerError> {
        wait(self.0.info())
    }

    /// See [`VmgsClient::device_size`].
    pub fn device_size(&self) -> Result<u64, BrokerError> {
        wait(self.0.device_size())
    }

    /// See [`VmgsClient::read`].
    pub fn read(&self, id: FileId) -> Result<Vec<u8>, BrokerError> {
        wait(self.0.read(id))
    }

    /// See [`VmgsClient::read_range`].
    pub fn read_range(&self, id: FileId, offset: u64, len: usize) -> Result<Vec<u8>, BrokerError> {
        wait(self.0.read_range(id, offset, len))
    }

    /// See [`VmgsClient::read_to`].
    pub fn read_to(&self, id: FileId, sink: Box<dyn io::Write + Send>) -> Result<u64, BrokerError> {
        wait(self.0.read_to(id, sink))
    }

    /// See [`VmgsClient::write`].
    pub fn write(
        &self,
        id: FileId,
        protection: Protection,
        content: impl Into<FileContent>,
    ) -> Result<(), BrokerError> {
        wait(self.0.write(id, protection, content))
    }

    /// See [`VmgsClient::write_provisioning_marker`].
    pub fn write_provisioning_marker(
        &self,
        marker: &ProvisioningMarker,
    ) -> Result<(), BrokerError> {
        wait(self.0.write_provisioning_marker(marker))
    }

    /// See [`VmgsClient::delete_file`].
    pub fn delete_file(&self, id: FileId) -> Result<(), BrokerError> {
        wait(self.0.delete_file(id))
    }

    /// See [`VmgsClient::commit`].
    pub fn commit(&self, changes: Changes) -> Result<(), BrokerError> {
        wait(self.0.commit(changes))
    }

    /// See [`VmgsClient::move_file`].
    pub fn move_file(
        &self,
        from: FileId,
        to: FileId,
        overwrite: Overwrite,
    ) -> Result<(), BrokerError> {
        wait(self.0.move_file(from, to, overwrite))
    }

    /// See [`VmgsClient::flush`].
    pub fn flush(&self) -> Result<(), BrokerError> {
        wait(self.0.flush())
    }

    /// See [`VmgsClient::unlock`].
    pub fn unlock(&self, key: Key) -> Result<(), BrokerError> {
        wait(self.0.unlock(key))
    }

    /// See [`VmgsClient::update_key`].
    pub fn update_key(&self, key: Key) -> Result<(), BrokerError> {
        wait(self.0.update_key(key))
    }

    /// See [`VmgsClient::rekey`].
    pub fn rekey(&self) -> Result<Vec<FileId>, BrokerError> {
        wait(self.0.rekey())
    }

    /// See [`VmgsClient::save`].
    pub fn save(&self) -> Result<SavedState, BrokerError> {
        wait(self.0.save())
    }

    /// See [`VmgsClient::unseal`].
    pub fn unseal(&self) -> Result<(), BrokerError> {
        wait(self.0.unseal())
    }
}
