//! The task that owns the store.

use crate::client::VmgsClient;
use crate::request::BrokerError;
use crate::request::Changes;
use crate::request::FileContent;
use crate::request::IfAbsent;
use crate::request::Request;
use crate::request::StoreInfo;
use mesh::Receiver;
use mesh::Rpc;
use mesh::saved_state::SavedState;
use std::io;
use std::num::NonZeroUsize;
use vmgs::BlockDevice;
use vmgs::Commit;
use vmgs::Content;
use vmgs::FileId;
use vmgs::OpenOptions;
use vmgs::SavedStore;
use vmgs::Vmgs;

/// Requests that wait at most; who asks for more waits for room.
const QUEUE_LEN: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The owner of a store. It ends when all its clients are gone.
pub struct Broker {
    store: Vmgs,
    requests: Receiver<Request>,
    sealed: bool,
}

/// Why a store cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The saved state is not a store's.
    #[error(transparent)]
    State(#[from] mesh::saved_state::RestoreError),
    /// The store does not fit its device.
    #[error(transparent)]
    Store(#[from] vmgs::Error),
}

impl Broker {
    /// A broker that has yet to [run](Broker::run), and its first client.
    pub fn new(store: Vmgs) -> (Self, VmgsClient) {
        let (sender, requests) = mesh::bounded(QUEUE_LEN);
        let broker = Self {
            store,
            requests,
            sealed: false,
        };
        (broker, VmgsClient::new(sender))
    }

    /// A broker for the store on `device` in the state that another broker saved. Nothing may have
    /// changed the store since.
    pub fn restore(
        device: Box<dyn BlockDevice>,
        options: OpenOptions,
        state: &SavedState,
    ) -> Result<(Self, VmgsClient), RestoreError> {
        let saved: SavedStore = state.decode()?;
        Ok(Self::new(Vmgs::restore(device, options, &saved)?))
    }

    /// Serves requests until all clients are gone, and gives the store back.
    ///
    /// The device is used from here, and may block: this is for an executor thread that does nothing
    /// else. [`run_blocking`](Broker::run_blocking) needs no executor.
    pub async fn run(mut self) -> Vmgs {
        while let Ok(request) = self.requests.recv().await {
            self.serve(request);
        }
        self.store
    }

    /// Serves requests on this thread until all clients are gone, and gives the store back.
    pub fn run_blocking(mut self) -> Vmgs {
        while let Ok(request) = self.requests.recv_blocking() {
            self.serve(request);
        }
        self.store
    }

    /// Starts a thread for a new broker of `store`. The thread ends when all clients are gone.
    pub fn spawn(store: Vmgs) -> io::Result<(VmgsClient, std::thread::JoinHandle<Vmgs>)> {
        let (broker, client) = Self::new(store);
        let thread = std::thread::Builder::new()
            .name("vmgs".into())
            .spawn(|| broker.run_blocking())?;
        Ok((client, thread))
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::FileInfo(rpc) => answer(rpc, |id| Ok(self.store.file_info(id)?)),
            Request::Info(rpc) => answer(rpc, |()| Ok(self.info())),
            Request::DeviceSize(rpc) => answer(rpc, |()| Ok(self.store.device_size())),
            Request::Read(rpc) => answer(rpc, |id| Ok(self.store.read(id)?)),
            Request::ReadRange(rpc) => {
                answer(rpc, |(id, offset, len)| self.read_range(id, offset, len));
            }
            Request::ReadTo(rpc) => {
                answer(rpc, |(id, mut sink)| {
                    Ok(self.store.read_to(id, &mut sink)?)
                });
            }
            Request::Commit(rpc) => answer(rpc, |changes| self.commit(changes)),
            Request::Move(rpc) => answer(rpc, |(from, to, overwrite)| {
                Ok(self.unsealed()?.move_file(from, to, overwrite)?)
            }),
            Request::Flush(rpc) => answer(rpc, |()| Ok(self.store.flush()?)),
            Request::Unlock(rpc) => answer(rpc, |key| Ok(self.unsealed()?.unlock(&key)?)),
            Request::UpdateKey(rpc) => answer(rpc, |key| Ok(self.unsealed()?.update_key(&key)?)),
            Request::Rekey(rpc) => answer(rpc, |()| Ok(self.unsealed()?.rekey()?)),
            Request::Save(rpc) => answer(rpc, |()| self.save()),
            Request::Unseal(rpc) => answer(rpc, |()| {
                self.sealed = false;
                Ok(())
            }),
        }
    }

    /// The store, to be changed. What an earlier change left in doubt is found out first.
    fn unsealed(&mut self) -> Result<&mut Vmgs, BrokerError> {
        if self.sealed {
            return Err(BrokerError::Sealed);
        }
        if self.store.is_in_doubt() {
            tracing::warn!("reloading the store after a commit that ended in doubt");
            self.store.reload()?;
        }
        Ok(&mut self.store)
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            device_size: self.store.device_size(),
            sequence: self.store.active_header().1,
            free_size: self.store.free_size(),
            largest_gap: self.store.largest_gap(),
            encrypted: self.store.is_encrypted(),
            locked: self.store.is_locked(),
            provisioned: self.store.provisioned(),
            sealed: self.sealed,
            files: self.store.files().collect(),
            findings: self.store.findings().to_vec(),
        }
    }

    fn read_range(&mut self, id: FileId, offset: u64, len: usize) -> Result<Vec<u8>, BrokerError> {
        let size = self.store.file_info(id)?.valid_bytes;
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let mut buffer = Vec::new();
        buffer
            .try_reserve_exact(len)
            .map_err(|_| vmgs::Error::OutOfMemory {
                id,
                size: len as u64,
            })?;
        buffer.resize(len, 0);
        let read = self.store.read_range(id, offset, &mut buffer)?;
        buffer.truncate(read);
        Ok(buffer)
    }

    fn commit(&mut self, mut changes: Changes) -> Result<(), BrokerError> {
        let store = self.unsealed()?;
        let mut commit = Commit::new();
        for (id, if_absent) in changes.deletes {
            commit = match if_absent {
                IfAbsent::Fail => commit.delete(id),
                IfAbsent::Ignore => commit.delete_if_present(id),
            };
        }
        for (id, protection, content) in &mut changes.writes {
            let content = match content {
                FileContent::Bytes(bytes) => Content::Bytes(bytes),
                FileContent::Stream { len, source } => Content::Stream { len: *len, source },
            };
            commit = commit.write_content(*id, *protection, content);
        }
        Ok(store.commit(commit)?)
    }

    fn save(&mut self) -> Result<SavedState, BrokerError> {
        let saved = self.unsealed_or_saved()?.save()?;
        self.sealed = true;
        Ok(SavedState::encode(&saved))
    }

    /// The store, to be saved (again).
    fn unsealed_or_saved(&mut self) -> Result<&mut Vmgs, BrokerError> {
        if self.sealed {
            Ok(&mut self.store)
        } else {
            self.unsealed()
        }
    }
}

/// Carries a request out, unless nobody waits for it any more.
fn answer<I, O>(
    rpc: Rpc<I, Result<O, BrokerError>>,
    handler: impl FnOnce(I) -> Result<O, BrokerError>,
) {
    if rpc.is_abandoned() {
        tracing::debug!("a request was withdrawn before its turn came");
        return;
    }
    rpc.handle_sync(handler);
}
