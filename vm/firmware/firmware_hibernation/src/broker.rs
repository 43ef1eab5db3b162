//! A VMGS store behind its broker, or open in this thread, as the place of the two files.

use crate::storage::Change;
use crate::storage::FileChange;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::storage::StoreState;
use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc;
use vmgs::Commit;
use vmgs::ErrorKind;
use vmgs::Protection;
use vmgs::Vmgs;
use vmgs_broker::BlockingClient;
use vmgs_broker::BrokerError;
use vmgs_broker::Changes;
use vmgs_broker::FileContent;
use vmgs_broker::VmgsClient;
use vmgs_format::FileId;

/// In an encrypted store both files are encrypted, and so authenticated.
const PROTECTION: Protection = Protection::IfEncrypted;

fn file_id(file: HibernationFile) -> FileId {
    match file {
        HibernationFile::Token => FileId::HIBERNATION_TOKEN,
        HibernationFile::Record => FileId::HIBERNATION_FIRMWARE,
    }
}

impl From<vmgs::Error> for StorageError {
    fn from(error: vmgs::Error) -> Self {
        let kind = match (&error, error.kind()) {
            (vmgs::Error::ReadOnly, _) => StorageErrorKind::ReadOnly,
            (_, ErrorKind::Corrupt) => StorageErrorKind::Corrupt,
            (_, ErrorKind::Locked) => StorageErrorKind::Locked,
            (_, ErrorKind::NoSpace) => StorageErrorKind::NoSpace,
            _ => StorageErrorKind::Io,
        };
        Self::new(kind, error)
    }
}

impl From<BrokerError> for StorageError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Store(error) => error.into(),
            BrokerError::Sealed => Self::new(StorageErrorKind::ReadOnly, error),
            BrokerError::Offline(_) => Self::new(StorageErrorKind::Io, error),
        }
    }
}

/// A store that a broker owns. Not for tasks of an executor: calls wait.
#[derive(Debug, Clone)]
pub struct BrokerStorage {
    client: BlockingClient,
}

impl BrokerStorage {
    /// The store behind this client.
    pub fn new(client: VmgsClient) -> Self {
        Self {
            client: client.blocking(),
        }
    }
}

/// What the broker's thread writes, to be read here.
struct Pipe(mpsc::SyncSender<Vec<u8>>);

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .send(bytes.to_vec())
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pieces that wait between the broker's thread and the reader.
const PIPE_LEN: usize = 4;

impl Storage for BrokerStorage {
    fn state(&mut self) -> Result<StoreState, StorageError> {
        let info = self.client.info()?;
        Ok(StoreState {
            sequence: info.sequence,
            size: info.device_size,
            free: info.free_size,
            largest_gap: info.largest_gap,
        })
    }

    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError> {
        match self.client.file_info(file_id(file)) {
            Ok(info) => Ok(Some(info.valid_bytes)),
            Err(error) if error.is_not_allocated() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError> {
        Ok(self.client.read_range(file_id(file), 0, len)?)
    }

    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let (sender, receiver) = mpsc::sync_channel(PIPE_LEN);
        let client = &self.client;
        std::thread::scope(|scope| {
            let reading = std::thread::Builder::new()
                .name("hibernation-read".into())
                .spawn_scoped(scope, move || {
                    client.read_to(file_id(file), Box::new(Pipe(sender)))
                })
                .map_err(|error| StorageError::new(StorageErrorKind::Io, error))?;
            let mut enough = false;
            for piece in &receiver {
                if sink(&piece).is_break() {
                    enough = true;
                    break;
                }
            }
            drop(receiver);
            match reading.join() {
                // Its pipe broke because the reader had enough.
                Ok(Err(_)) if enough => Ok(()),
                Ok(result) => Ok(result.map(drop)?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn commit(&mut self, change: Change) -> Result<(), StorageError> {
        let mut changes = Changes::new();
        for (file, change) in change.into_files() {
            let id = file_id(file);
            changes = match change {
                FileChange::Keep => changes,
                FileChange::Delete => changes.delete_if_present(id),
                FileChange::Write { len, source } => {
                    changes.write(id, PROTECTION, FileContent::Stream { len, source })
                }
            };
        }
        Ok(self.client.commit(changes)?)
    }
}

/// A store that is open in this thread, for tools and tests.
impl Storage for Vmgs {
    fn state(&mut self) -> Result<StoreState, StorageError> {
        Ok(StoreState {
            sequence: self.active_header().1,
            size: self.device_size(),
            free: self.free_size(),
            largest_gap: self.largest_gap(),
        })
    }

    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError> {
        match self.file_info(file_id(file)) {
            Ok(info) => Ok(Some(info.valid_bytes)),
            Err(vmgs::Error::NotAllocated(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError> {
        let valid = self.file_info(file_id(file))?.valid_bytes;
        let len = len.min(usize::try_from(valid).unwrap_or(len));
        let mut bytes = vec![0; len];
        let read = self.read_range(file_id(file), 0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        struct Sink<'a> {
            sink: &'a mut dyn FnMut(&[u8]) -> ControlFlow<()>,
            enough: bool,
        }
        impl io::Write for Sink<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if (self.sink)(bytes).is_break() {
                    self.enough = true;
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = Sink {
            sink,
            enough: false,
        };
        match self.read_to(file_id(file), &mut sink) {
            Err(_) if sink.enough => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    fn commit(&mut self, change: Change) -> Result<(), StorageError> {
        if self.is_in_doubt() {
            self.reload()?;
        }
        let mut sources = Vec::new();
        let mut commit = Commit::new();
        for (file, change) in change.into_files() {
            match change {
                FileChange::Keep => {}
                FileChange::Delete => commit = commit.delete_if_present(file_id(file)),
                FileChange::Write { len, source } => sources.push((file_id(file), len, source)),
            }
        }
        for (id, len, source) in &mut sources {
            commit = commit.write_from(*id, PROTECTION, *len, source);
        }
        Ok(Vmgs::commit(self, commit)?)
    }
}
