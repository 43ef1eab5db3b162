//! Opening the VMGS file that keeps the VM's state, and starting its broker.

use firmware_hibernation::BrokerStorage;
use firmware_hibernation::HibernationFile;
use firmware_hibernation::SequenceNoteFile;
use firmware_hibernation::Storage;
use firmware_hibernation::StorageError;
use firmware_hibernation::StorageErrorKind;
use firmware_hibernation::StoreChange;
use firmware_hibernation::StoreState;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use vmgs::Container;
use vmgs::ContainerError;
use vmgs::ErrorKind;
use vmgs::FileDevice;
use vmgs::OnProblem;
use vmgs::OpenOptions;
use vmgs::OpenPolicy;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_broker::Broker;
use vmgs_broker::VmgsClient;

/// Size of a new store in bytes: room for a firmware image, the image that replaces it, and the variables.
const NEW_STORE: u64 = 64 << 20;

/// Why a VMGS file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VmgsError {
    /// A new file cannot be created.
    #[error("cannot create the VMGS file {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file cannot be opened.
    #[error("cannot open the VMGS file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ContainerError,
    },
    /// The store in the file cannot be used.
    #[error("cannot use the store in the VMGS file {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: vmgs::Error,
    },
    /// The saved VM had a store, and there is none.
    #[error("there is no store in the VMGS file {}, and the saved VM had one", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The broker's thread cannot be started.
    #[error("cannot start the thread that owns the VMGS file")]
    Thread(#[source] io::Error),
}

/// The VMGS file as it was found. Nothing is written to it before [`PlannedStore::create`].
pub(crate) struct PlannedStore {
    path: PathBuf,
    found: Found,
    /// The store's client, once there is a store.
    client: Arc<OnceLock<VmgsClient>>,
}

enum Found {
    Store,
    NoFile,
    EmptyFile,
}

impl PlannedStore {
    /// Opens the store in the file at `path`, if there is one.
    pub(crate) fn new(path: &Path) -> Result<Self, VmgsError> {
        let planned = |found| Self {
            path: path.into(),
            found,
            client: Arc::default(),
        };
        if !path.exists() {
            return Ok(planned(Found::NoFile));
        }
        match Vmgs::open(open_device(path)?, OpenOptions::default()) {
            Ok(store) => {
                let planned = planned(Found::Store);
                planned.serve(store)?;
                Ok(planned)
            }
            Err(error) if error.kind() == ErrorKind::Empty => Ok(planned(Found::EmptyFile)),
            Err(source) => Err(VmgsError::Store {
                path: path.into(),
                source,
            }),
        }
    }

    /// The store's client, unless the store is still to be created.
    pub(crate) fn client(&self) -> Option<&VmgsClient> {
        self.client.get()
    }

    /// What hibernation keeps in the store. Before the store is created it reads as empty.
    pub(crate) fn storage(&self) -> Box<dyn Storage> {
        Box::new(PlannedStorage {
            client: self.client.clone(),
            storage: None,
        })
    }

    /// The file in which the store's sequence number is noted.
    pub(crate) fn sequence_note(&self) -> Option<SequenceNoteFile> {
        SequenceNoteFile::beside(&self.path)
    }

    /// Requires the store to be there: a machine that is to be restored had one.
    pub(crate) fn require(&self) -> Result<(), VmgsError> {
        let path = self.path.clone();
        self.client().map(drop).ok_or(VmgsError::Missing { path })
    }

    /// Creates the store if there is none.
    pub(crate) fn create(&self) -> Result<(), VmgsError> {
        let path = &self.path;
        match self.found {
            Found::Store => return Ok(()),
            Found::NoFile => {
                tracing::info!(path = %path.display(), "creating the VMGS file");
                create_file(path).map_err(|source| VmgsError::Create {
                    path: path.clone(),
                    source,
                })?;
            }
            Found::EmptyFile => {}
        }
        let policy = OpenPolicy {
            on_empty: OnProblem::Format,
            ..OpenPolicy::default()
        };
        let store = Vmgs::open_or_format(open_device(path)?, OpenOptions::default(), policy);
        self.serve(store.map_err(|source| VmgsError::Store {
            path: path.clone(),
            source,
        })?)
    }

    /// Starts the store's broker, whose thread ends with its last client.
    fn serve(&self, store: Vmgs) -> Result<(), VmgsError> {
        let (client, _thread) = Broker::spawn(store).map_err(VmgsError::Thread)?;
        // The store is opened once: when it is found, or when it is created.
        let _ = self.client.set(client);
        Ok(())
    }
}

fn open_device(path: &Path) -> Result<Box<FileDevice>, VmgsError> {
    let device = FileDevice::open(path, Container::Detect, StoreAccess::ReadWrite);
    device.map(Box::new).map_err(|source| VmgsError::Open {
        path: path.into(),
        source,
    })
}

/// Creates a file with an empty store at `path`. If that fails, there is no file.
fn create_file(path: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .prefix(".vmgs-")
        .tempfile_in(parent)?;
    vmgs::create_file(temporary.as_file(), NEW_STORE, Container::Vhd1, None)?;
    let file = temporary.as_file().try_clone()?;
    let device = FileDevice::new(file, Container::Vhd1, StoreAccess::ReadWrite)?;
    drop(Vmgs::format(Box::new(device), OpenOptions::default())?);
    temporary.persist_noclobber(path)?;
    Ok(())
}

/// The store of hibernation, which may be created after it was first asked.
struct PlannedStorage {
    client: Arc<OnceLock<VmgsClient>>,
    storage: Option<BrokerStorage>,
}

impl PlannedStorage {
    fn storage(&mut self) -> Option<&mut BrokerStorage> {
        if self.storage.is_none() {
            self.storage = self.client.get().cloned().map(BrokerStorage::new);
        }
        self.storage.as_mut()
    }

    fn created(&mut self) -> Result<&mut BrokerStorage, StorageError> {
        self.storage().ok_or_else(|| {
            StorageError::new(StorageErrorKind::Io, "the VMGS store is not created yet")
        })
    }
}

impl Storage for PlannedStorage {
    fn state(&mut self) -> Result<StoreState, StorageError> {
        match self.storage() {
            Some(storage) => storage.state(),
            // Older than any store: a guest that hibernated is not started as if it had not.
            None => Ok(StoreState {
                sequence: 0,
                size: 0,
                free: 0,
                largest_gap: 0,
            }),
        }
    }

    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError> {
        match self.storage() {
            Some(storage) => storage.len(file),
            None => Ok(None),
        }
    }

    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError> {
        self.created()?.read_start(file, len)
    }

    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.created()?.read(file, sink)
    }

    fn commit(&mut self, change: StoreChange) -> Result<(), StorageError> {
        self.created()?.commit(change)
    }
}
