//! Opening the VMGS file that keeps the VM's state, and starting its broker.
//!
//! A start that fails leaves the file as it was. So what is written before the machine is built is held back: a new
//! file has another name until then, and changes to a file that is there stay in memory.

use firmware_hibernation::BrokerStorage;
use firmware_hibernation::HibernationFile;
use firmware_hibernation::RecordPlace;
use firmware_hibernation::SequenceNoteFile;
use firmware_hibernation::Storage;
use firmware_hibernation::StorageError;
use firmware_hibernation::StorageErrorKind;
use firmware_hibernation::StoreChange;
use firmware_hibernation::StoreState;
use host_file::Allowed;
use openvmm_defs::config::VmConfig;
use openvmm_defs::config::VmgsMemory;
use openvmm_defs::start::FormatVmgs;
use openvmm_defs::start::Start;
use parking_lot::Mutex;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use tempfile::TempPath;
use vmgs::BlockDevice;
use vmgs::Container;
use vmgs::ContainerError;
use vmgs::ErrorKind;
use vmgs::FileDevice;
use vmgs::FileId;
use vmgs::Key;
use vmgs::MemoryDevice;
use vmgs::OnProblem;
use vmgs::OpenOptions;
use vmgs::OpenPolicy;
use vmgs::StagedDevice;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_broker::Broker;
use vmgs_broker::BrokerError;
use vmgs_broker::VmgsClient;

/// Size of a new store in bytes: room for a firmware image, the image that replaces it, and the variables.
const NEW_STORE: u64 = 64 << 20;

/// The largest store in memory in bytes.
const LARGEST_IN_MEMORY: u64 = 1 << 30;

/// The largest store that can be part of a snapshot in bytes.
const LARGEST_IMAGE: u64 = 1 << 30;

/// Size of a hibernation token in bytes.
const TOKEN_LEN: u64 = 8;

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
    /// The path is a link to a file that does not exist.
    #[error(
        "the VMGS file {} is a link to {}, which does not exist; make it, or remove the link",
        path.display(),
        target.display()
    )]
    DanglingLink {
        /// The link.
        path: PathBuf,
        /// What it leads to.
        target: PathBuf,
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
    /// The file cannot be written.
    #[error("cannot write the VMGS file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
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
    /// The store is encrypted.
    #[error(
        "the store in the VMGS file {} is encrypted, and its key is not given (`--vmgs-key`)",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The store is not encrypted.
    #[error(
        "a key is given, and the store in the VMGS file {} is not encrypted; `vmgstool encrypt` encrypts it",
        path.display()
    )]
    NotEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// What hibernation needs cannot be reserved in a new store.
    #[error("cannot reserve space for hibernation in the VMGS file {}", path.display())]
    Reserve {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: BrokerError,
    },
    /// The saved VM had a store, and there is none.
    #[error("there is no store in the VMGS file {}, and the saved VM had one", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A store in memory cannot have this size.
    #[error("a store in memory has 16384 bytes to 1 GiB, in steps of 4096; not {size}")]
    MemorySize {
        /// The size in bytes.
        size: u64,
    },
    /// The configuration has an overlay, and no file below it.
    #[error("a store that is kept in memory over a file needs the file")]
    NothingBelow,
    /// The broker's thread cannot be started.
    #[error("cannot start the thread that owns the VMGS file")]
    Thread(#[source] io::Error),
}

impl VmgsError {
    /// Whether the host failed, with a file that can be used.
    pub(crate) fn is_host_failure(&self) -> bool {
        match self {
            Self::Write { .. } | Self::Thread(_) => true,
            Self::Store { source, .. }
            | Self::Reserve {
                source: BrokerError::Store(source),
                ..
            } => source.kind() == ErrorKind::DiskFull,
            _ => false,
        }
    }
}

/// The store as it was found. The file is as it was before [`PlannedStore::keep`].
pub(crate) struct PlannedStore {
    /// The file; for messages, a word for what is in memory.
    path: PathBuf,
    found: Found,
    key: Option<Key>,
    /// A file that is new.
    new_file: Mutex<Option<UnkeptFile>>,
    /// The store's client, once there is a store.
    client: Arc<OnceLock<VmgsClient>>,
}

enum Found {
    Store(StagedDevice),
    /// A device that is to be formatted.
    ToFormat(StagedDevice, Format),
    NoFile,
    /// A file of no bytes.
    EmptyFile,
    InMemory(u64),
}

/// Where the whole store can be read.
pub(crate) enum StoreImage {
    /// In its file.
    File(PathBuf),
    /// In a file, below changes in memory.
    Overlay(StagedDevice),
    /// Nowhere: it is in memory, and only its owner reads it.
    Memory,
}

impl StoreImage {
    /// Reads it. Nothing writes it meanwhile.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::File(path) => {
                let file = host_file::open_input(path, Allowed::RegularOrBlock)?;
                let mut bytes = Vec::new();
                file.take(LARGEST_IMAGE + 1).read_to_end(&mut bytes)?;
                check_image(bytes.len() as u64)?;
                Ok(bytes)
            }
            Self::Overlay(device) => {
                let mut device = device.clone();
                let len = device.sector_count() * u64::from(device.sector_size());
                check_image(len)?;
                let mut bytes = vec![0; len as usize];
                device.read_at(0, &mut bytes)?;
                Ok(bytes)
            }
            Self::Memory => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn check_image(len: u64) -> io::Result<()> {
    match len > LARGEST_IMAGE {
        true => Err(io::Error::other(format!(
            "it is larger than {} MiB",
            LARGEST_IMAGE >> 20
        ))),
        false => Ok(()),
    }
}

/// A new file, before the start has succeeded. It goes away with this.
enum UnkeptFile {
    /// It has no name yet.
    Unnamed(File),
    /// It has another name, on file systems where every file has one.
    Named(TempPath),
    /// It was there, without content.
    Filled(FilledFile),
}

/// A file that had no content. It has none again when this is dropped.
struct FilledFile(Option<File>);

impl FilledFile {
    fn stays(mut self) {
        self.0 = None;
    }
}

impl Drop for FilledFile {
    fn drop(&mut self) {
        if let Some(file) = &self.0
            && let Err(error) = file.set_len(0)
        {
            tracing::warn!(%error, "the VMGS file cannot be emptied again");
        }
    }
}

#[derive(Clone, Copy)]
enum Format {
    /// If it is blank, or also if it is damaged.
    As(OpenPolicy),
    Always,
}

impl PlannedStore {
    /// Opens the store of the machine, if it has one and it exists. `key` is the key of an encrypted store; with it, a
    /// new store is encrypted.
    pub(crate) fn new(
        config: &VmConfig,
        start: &Start,
        key: Option<Key>,
    ) -> Result<Option<Self>, VmgsError> {
        let format = match start {
            Start::Boot(options) => options.vmgs_format,
            Start::Restore(_) => None,
        };
        let (path, found) = match (&config.vmgs, config.vmgs_memory) {
            (None, None) => return Ok(None),
            (_, Some(VmgsMemory::New(size))) => {
                if !(16384..=LARGEST_IN_MEMORY).contains(&size) || !size.is_multiple_of(4096) {
                    return Err(VmgsError::MemorySize { size });
                }
                (PathBuf::from("(in memory)"), Found::InMemory(size))
            }
            (None, Some(VmgsMemory::Overlay)) => return Err(VmgsError::NothingBelow),
            (Some(path), memory) => (path.clone(), find(path, memory, format)?),
        };
        let store = Self {
            path,
            found,
            key,
            new_file: Mutex::default(),
            client: Arc::default(),
        };
        if let Found::Store(device) = &store.found {
            store.serve(store.open(device)?)?;
        }
        Ok(Some(store))
    }

    /// Opens and unlocks the store that was found.
    fn open(&self, device: &StagedDevice) -> Result<Vmgs, VmgsError> {
        let path = || self.path.clone();
        let store = Vmgs::open(Box::new(device.clone()), OpenOptions::default());
        let mut store = store.map_err(|source| self.store_error(source))?;
        match &self.key {
            None if store.is_encrypted() => return Err(VmgsError::Locked { path: path() }),
            None => {}
            Some(_) if !store.is_encrypted() => {
                return Err(VmgsError::NotEncrypted { path: path() });
            }
            Some(key) => store
                .unlock(key)
                .map_err(|source| self.store_error(source))?,
        }
        Ok(store)
    }

    fn store_error(&self, source: vmgs::Error) -> VmgsError {
        VmgsError::Store {
            path: self.path.clone(),
            source,
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

    /// The file in which the store's sequence number is noted, for a store that outlives the VM.
    pub(crate) fn sequence_note(&self) -> Option<SequenceNoteFile> {
        match &self.found {
            Found::InMemory(_) => None,
            Found::Store(device) | Found::ToFormat(device, _) if device.is_overlay() => None,
            _ => SequenceNoteFile::beside(&self.path),
        }
    }

    /// Where the whole store can be read, once the machine has started.
    pub(crate) fn image(&self) -> StoreImage {
        match &self.found {
            Found::InMemory(_) => StoreImage::Memory,
            Found::Store(device) | Found::ToFormat(device, _) if device.is_overlay() => {
                StoreImage::Overlay(device.clone())
            }
            _ => StoreImage::File(self.path.clone()),
        }
    }

    /// Requires the store to be there: a machine that is to be restored had one.
    pub(crate) fn require(&self) -> Result<(), VmgsError> {
        let path = self.path.clone();
        self.client().map(drop).ok_or(VmgsError::Missing { path })
    }

    /// Whether the file was there before this start.
    pub(crate) fn is_old_file(&self) -> bool {
        matches!(self.found, Found::Store(_) | Found::ToFormat(..))
    }

    /// Creates the store if there is none.
    pub(crate) fn create(&self) -> Result<(), VmgsError> {
        let options = OpenOptions::default();
        let store = match &self.found {
            Found::Store(_) => return Ok(()),
            Found::ToFormat(device, format) => {
                let device = Box::new(device.clone());
                match format {
                    Format::As(policy) => Vmgs::open_or_format(device, options, *policy),
                    Format::Always => Vmgs::format(device, options),
                }
            }
            Found::NoFile => Vmgs::format(self.create_file()?, options),
            Found::EmptyFile => Vmgs::format(self.fill_file()?, options),
            Found::InMemory(size) => {
                // The size is at most LARGEST_IN_MEMORY.
                Vmgs::format(Box::new(MemoryDevice::new(512, *size as usize)), options)
            }
        };
        let store = store.and_then(|mut store| {
            if let Some(key) = &self.key {
                store.encrypt(key)?;
            }
            Ok(store)
        });
        self.serve(store.map_err(|source| self.store_error(source))?)
    }

    /// Creates the file without its name.
    fn create_file(&self) -> Result<Box<dyn BlockDevice>, VmgsError> {
        tracing::info!(path = %self.path.display(), "creating the VMGS file");
        let directory = host_file::directory(&self.path);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (file, unkept) = match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                let file = File::from(file);
                let unnamed = file.try_clone().map_err(|error| self.create_error(error))?;
                (file, UnkeptFile::Unnamed(unnamed))
            }
            Err(_) => {
                let mut named = tempfile::Builder::new();
                let named = named.prefix(".vmgs-").tempfile_in(directory);
                let (file, path) = named
                    .map_err(|error| self.create_error(error))?
                    .into_parts();
                (file, UnkeptFile::Named(path))
            }
        };
        self.make_disk(&file, unkept)
    }

    /// Makes a disk of the file, which is empty.
    fn fill_file(&self) -> Result<Box<dyn BlockDevice>, VmgsError> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true);
        let file = host_file::open(&self.path, &options, Allowed::Regular);
        let file = file.map_err(|error| self.create_error(error))?;
        // It may have got content meanwhile.
        let len = file.metadata().map(|metadata| metadata.len());
        if len.map_err(|error| self.create_error(error))? != 0 {
            return Err(self.create_error("it is not empty any more"));
        }
        let filled = file.try_clone().map_err(|error| self.create_error(error))?;
        self.make_disk(&file, UnkeptFile::Filled(FilledFile(Some(filled))))
    }

    fn make_disk(
        &self,
        file: &File,
        unkept: UnkeptFile,
    ) -> Result<Box<dyn BlockDevice>, VmgsError> {
        let path = open_file_path(file);
        let made = vmgs::create_file(file, NEW_STORE, Container::Vhd1, None)
            .and_then(|()| FileDevice::open(&path, Container::Vhd1, StoreAccess::ReadWrite));
        let device = made.map_err(|source| self.create_error(source))?;
        *self.new_file.lock() = Some(unkept);
        Ok(Box::new(device.known_as(&self.path)))
    }

    fn create_error(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> VmgsError {
        VmgsError::Create {
            path: self.path.clone(),
            source: source.into(),
        }
    }

    /// Reserves what the token of a guest that hibernates needs, in the store and on the host's disk; in a file that was
    /// there only after [`PlannedStore::keep`], as this changes it. A VM whose store exists starts without it: its guest may be
    /// hibernated, and resuming needs no space.
    pub(crate) fn reserve(&self) -> Result<(), VmgsError> {
        let Some(client) = self.client() else {
            return Ok(());
        };
        let reserved = client.reserve(FileId::HIBERNATION_TOKEN, TOKEN_LEN);
        match (pal_async::block_on(reserved), &self.found) {
            (Ok(()), _) => Ok(()),
            (Err(error), Found::Store(_)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the guest may be unable to hibernate: no space can be reserved for it in the VMGS file"
                );
                Ok(())
            }
            (Err(source), _) => Err(VmgsError::Reserve {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// Writes what was held back: the machine is built. A file that is new is removed again when the result is dropped.
    pub(crate) fn keep(&self) -> Result<NewFile, VmgsError> {
        if let Found::Store(device) | Found::ToFormat(device, _) = &self.found {
            device.release().map_err(|source| VmgsError::Write {
                path: self.path.clone(),
                source,
            })?;
        }
        match self.new_file.lock().take() {
            None => return Ok(NewFile(None)),
            Some(UnkeptFile::Filled(file)) => return Ok(NewFile(Some(Made::Filled(file)))),
            Some(UnkeptFile::Unnamed(file)) => {
                let from = open_file_path(&file);
                let follow = AtFlags::SYMLINK_FOLLOW;
                let named = rustix::fs::linkat(CWD, &from, CWD, &self.path, follow);
                named.map_err(|error| self.create_error(io::Error::from(error)))?;
            }
            Some(UnkeptFile::Named(temporary)) => temporary
                .persist_noclobber(&self.path)
                .map_err(|error| self.create_error(error.error))?,
        }
        let new = NewFile(Some(Made::Created(self.path.clone())));
        host_file::sync_directory(&self.path).map_err(|source| self.create_error(source))?;
        Ok(new)
    }

    /// Starts the store's broker, whose thread ends with its last client.
    fn serve(&self, store: Vmgs) -> Result<(), VmgsError> {
        let (client, _thread) = Broker::spawn(store).map_err(VmgsError::Thread)?;
        // The store is opened once: when it is found, or when it is created.
        let _ = self.client.set(client);
        Ok(())
    }
}

/// The path of an open file, with or without a name.
fn open_file_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// A file that this start created or filled, if it did. It is as it was before unless the start succeeds.
#[must_use]
pub(crate) struct NewFile(Option<Made>);

enum Made {
    Filled(FilledFile),
    Created(PathBuf),
}

impl NewFile {
    /// The start succeeded.
    pub(crate) fn stays(mut self) {
        if let Some(Made::Filled(file)) = self.0.take() {
            file.stays();
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(Made::Created(path)) = &self.0
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(%error, path = %path.display(), "the new VMGS file cannot be removed");
        }
    }
}

/// What is at `path`. Nothing is written.
fn find(
    path: &Path,
    memory: Option<VmgsMemory>,
    format: Option<FormatVmgs>,
) -> Result<Found, VmgsError> {
    let exists = path.try_exists().map_err(|source| VmgsError::Open {
        path: path.into(),
        source: ContainerError::Open {
            path: path.into(),
            source,
        },
    })?;
    let open_error = |source| VmgsError::Open {
        path: path.into(),
        source,
    };
    let below = |access| FileDevice::open(path, Container::Detect, access).map(Box::new);
    let device = match memory {
        // An overlay over nothing is an error.
        Some(_) => StagedDevice::overlay(below(StoreAccess::ReadOnly).map_err(open_error)?),
        None if exists => match below(StoreAccess::ReadWrite) {
            Err(ContainerError::ZeroLength) => return Ok(Found::EmptyFile),
            device => StagedDevice::new(device.map_err(open_error)?),
        },
        None => {
            return match path.read_link() {
                Ok(target) => Err(VmgsError::DanglingLink {
                    path: path.into(),
                    target,
                }),
                Err(_) => Ok(Found::NoFile),
            };
        }
    };
    let policy = OpenPolicy {
        on_empty: OnProblem::Format,
        on_corrupt: match format {
            Some(FormatVmgs::IfDamaged) => OnProblem::Format,
            _ => OnProblem::Fail,
        },
    };
    if format == Some(FormatVmgs::Always) {
        return Ok(Found::ToFormat(device, Format::Always));
    }
    // What is held back of this does not matter: the device is opened again.
    let options = OpenOptions {
        access: StoreAccess::ReadOnly,
        ..OpenOptions::default()
    };
    match Vmgs::open(Box::new(device.clone()), options) {
        Ok(_) => Ok(Found::Store(device)),
        Err(error) if error.kind() == ErrorKind::Empty => {
            Ok(Found::ToFormat(device, Format::As(policy)))
        }
        Err(error)
            if error.kind() == ErrorKind::Corrupt && policy.on_corrupt == OnProblem::Format =>
        {
            Ok(Found::ToFormat(device, Format::As(policy)))
        }
        Err(source) => Err(VmgsError::Store {
            path: path.into(),
            source,
        }),
    }
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

    fn record_place(&mut self) -> Result<RecordPlace, StorageError> {
        self.created()?.record_place()
    }
}

#[cfg(test)]
#[path = "vmgs_store_test.rs"]
mod tests;
