//! The owner of the store.

use crate::client::VmgsClient;
use crate::request::BrokerError;
use crate::request::ReadChunks;
use crate::request::Request;
use crate::request::StoreInfo;
use mesh::BoundedSender;
use mesh::Receiver;
use mesh::Rpc;
use mesh::saved_state::SavedState;
use std::io;
use std::num::NonZeroUsize;
use std::thread::JoinHandle;
use vmgs::BlockDevice;
use vmgs::FileId;
use vmgs::OpenOptions;
use vmgs::SavedStore;
use vmgs::Vmgs;

/// The most requests that wait; further callers wait for room.
const QUEUE_LEN: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The owner of a store. It ends when all its clients are gone.
pub struct Broker {
    store: Vmgs,
    requests: Receiver<Request>,
    sealed: bool,
}

/// Why a store cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreStoreError {
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
    ) -> Result<(Self, VmgsClient), RestoreStoreError> {
        let saved: SavedStore = state.decode()?;
        Ok(Self::new(Vmgs::restore(device, options, &saved)?))
    }

    /// Serves requests until all clients are gone, and gives the store back.
    ///
    /// It waits for the device and for readers on the executor's thread, which must have nothing else to run: see
    /// [`spawn`](Broker::spawn).
    pub async fn run(mut self) -> Vmgs {
        while let Ok(request) = self.requests.recv().await {
            self.serve(request);
        }
        self.store
    }

    /// Starts a thread for a new broker of `store`. The thread ends when all clients are gone.
    pub fn spawn(store: Vmgs) -> io::Result<(VmgsClient, JoinHandle<Vmgs>)> {
        let (broker, client) = Self::new(store);
        let thread = std::thread::Builder::new()
            .name("vmgs".into())
            .spawn(|| pal_async::block_on(broker.run()))?;
        Ok((client, thread))
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::FileInfo(rpc) => answer(rpc, |id| Ok(self.store.file_info(id)?)),
            Request::Info(rpc) => answer(rpc, |()| Ok(self.info())),
            Request::Read(rpc) => answer(rpc, |id| Ok(self.store.read(id)?)),
            Request::ReadRange(rpc) => {
                answer(rpc, |(id, offset, len)| self.read_range(id, offset, len));
            }
            Request::ReadChunks(rpc) => answer(rpc, |ReadChunks { id, chunks }| {
                self.store.read_to(id, &mut ChunkWriter(chunks))?;
                Ok(())
            }),
            Request::Commit(rpc) => answer(rpc, |commit| Ok(self.unsealed()?.commit(commit)?)),
            Request::Reserve(rpc) => {
                answer(rpc, |(id, len)| Ok(self.unsealed()?.reserve(id, len)?));
            }
            Request::Unlock(rpc) => answer(rpc, |key| Ok(self.unsealed()?.unlock(&key)?)),
            Request::UpdateKey(rpc) => answer(rpc, |key| Ok(self.unsealed()?.update_key(&key)?)),
            Request::Save(rpc) => answer(rpc, |()| self.save()),
            Request::Unseal(rpc) => answer(rpc, |()| {
                self.sealed = false;
                Ok(())
            }),
        }
    }

    /// The store, to be changed. It is reloaded first if an earlier change may or may not have happened.
    fn unsealed(&mut self) -> Result<&mut Vmgs, BrokerError> {
        if self.sealed {
            return Err(BrokerError::Sealed);
        }
        if self.store.is_in_doubt() {
            tracing::warn!("reloading the store: the last commit may or may not have happened");
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

/// Sends what is written to it in chunks, and waits while the reader does not take them.
struct ChunkWriter(BoundedSender<Vec<u8>>);

impl io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .send_blocking(bytes.to_vec())
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Carries a request out, unless its caller no longer waits.
fn answer<I, O>(
    rpc: Rpc<I, Result<O, BrokerError>>,
    handler: impl FnOnce(I) -> Result<O, BrokerError>,
) {
    if rpc.is_abandoned() {
        tracing::debug!("skipping a request whose caller no longer waits");
        return;
    }
    rpc.handle_sync(handler);
}
