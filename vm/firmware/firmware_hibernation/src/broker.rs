//! A VMGS store, behind its broker or open in this thread, as the storage of the two files.

use crate::place;
use crate::place::Places;
use crate::place::StoreFiles;
use crate::storage::FileChange;
use crate::storage::HibernationFile;
use crate::storage::RecordPlace;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::storage::StoreChange;
use crate::storage::StoreState;
use pal_async::block_on;
use std::io;
use std::io::Read;
use std::ops::ControlFlow;
use vmgs::Commit;
use vmgs::ErrorKind;
use vmgs::Protection;
use vmgs::Vmgs;
use vmgs_broker::BrokerError;
use vmgs_broker::VmgsClient;
use vmgs_format::FileId;

/// In an encrypted store both files are encrypted, and so authenticated.
const PROTECTION: Protection = Protection::IfEncrypted;

impl From<vmgs::Error> for StorageError {
    fn from(error: vmgs::Error) -> Self {
        let kind = match (&error, error.kind()) {
            (vmgs::Error::ReadOnly, _) => StorageErrorKind::ReadOnly,
            (_, ErrorKind::Corrupt) => StorageErrorKind::Corrupt,
            (_, ErrorKind::Locked) => StorageErrorKind::Locked,
            (_, ErrorKind::NoSpace) => StorageErrorKind::NoSpace,
            (_, ErrorKind::DiskFull) => StorageErrorKind::DiskFull,
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

/// A store that a broker owns. Calls wait, so a task of an executor must not make them.
#[derive(Debug, Clone)]
pub struct BrokerStorage {
    client: VmgsClient,
}

impl BrokerStorage {
    /// The store behind this client.
    pub fn new(client: VmgsClient) -> Self {
        Self { client }
    }
}

impl StoreFiles for BrokerStorage {
    fn file_len(&mut self, id: FileId) -> Result<Option<u64>, StorageError> {
        Ok(block_on(self.client.file_len(id))?)
    }

    fn file_start(&mut self, id: FileId, len: usize) -> Result<Vec<u8>, StorageError> {
        Ok(block_on(self.client.read_range(id, 0, len))?)
    }
}

impl Storage for BrokerStorage {
    fn state(&mut self) -> Result<StoreState, StorageError> {
        let info = block_on(self.client.info())?;
        Ok(StoreState {
            sequence: info.sequence,
            size: info.device_size,
            free: info.free_size,
            largest_gap: info.largest_gap,
        })
    }

    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError> {
        place::len(self, file)
    }

    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError> {
        let id = place::existing(self, file)?;
        self.file_start(id, len)
    }

    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let id = place::existing(self, file)?;
        Ok(block_on(self.client.read_chunks(id, sink))?)
    }

    fn commit(&mut self, change: StoreChange) -> Result<(), StorageError> {
        let mut commit = Commit::new();
        for (file, change) in change.into_files() {
            commit = match change {
                FileChange::Keep => commit,
                FileChange::Delete => match place::for_deleting(self, file)? {
                    Some(id) => commit.delete_if_present(id),
                    None => commit,
                },
                FileChange::Write { len, source } => {
                    let id = place::for_writing(self, file)?;
                    commit.write(id, PROTECTION, read_content(file, len, source)?)
                }
            };
        }
        Ok(block_on(self.client.commit(commit))?)
    }

    fn record_place(&mut self) -> Result<RecordPlace, StorageError> {
        Ok(Places::search(self)?.record_place())
    }
}

/// The `len` bytes of new content, in memory.
fn read_content(
    file: HibernationFile,
    len: u64,
    source: impl Read,
) -> Result<Vec<u8>, StorageError> {
    let read = || {
        let mut content = Vec::new();
        content
            .try_reserve_exact(usize::try_from(len).map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
        source.take(len).read_to_end(&mut content)?;
        if content.len() as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(content)
    };
    read().map_err(|error: io::Error| {
        let text = format!("getting the {len} bytes of the {file} failed: {error}");
        StorageError::new(StorageErrorKind::Io, text)
    })
}

impl StoreFiles for Vmgs {
    fn file_len(&mut self, id: FileId) -> Result<Option<u64>, StorageError> {
        match self.file_info(id) {
            Ok(info) => Ok(Some(info.valid_bytes)),
            Err(vmgs::Error::NotAllocated(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn file_start(&mut self, id: FileId, len: usize) -> Result<Vec<u8>, StorageError> {
        let valid = self.file_info(id)?.valid_bytes;
        let len = len.min(usize::try_from(valid).unwrap_or(len));
        let mut bytes = vec![0; len];
        let read = self.read_range(id, 0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
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
        place::len(self, file)
    }

    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError> {
        let id = place::existing(self, file)?;
        self.file_start(id, len)
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
        let id = place::existing(self, file)?;
        match self.read_to(id, &mut sink) {
            Err(_) if sink.enough => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    fn commit(&mut self, change: StoreChange) -> Result<(), StorageError> {
        if self.is_in_doubt() {
            self.reload()?;
        }
        let mut sources = Vec::new();
        let mut commit = Commit::new();
        for (file, change) in change.into_files() {
            match change {
                FileChange::Keep => {}
                FileChange::Delete => {
                    if let Some(id) = place::for_deleting(self, file)? {
                        commit = commit.delete_if_present(id);
                    }
                }
                FileChange::Write { len, source } => {
                    sources.push((place::for_writing(self, file)?, len, source));
                }
            }
        }
        for (id, len, source) in &mut sources {
            commit = commit.write_from(*id, PROTECTION, *len, source);
        }
        Ok(Vmgs::commit(self, commit)?)
    }

    fn record_place(&mut self) -> Result<RecordPlace, StorageError> {
        Ok(Places::search(self)?.record_place())
    }
}
