//! Opening the VMGS file that keeps the VM's state, and starting its broker.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use vmgs::Access;
use vmgs::Container;
use vmgs::ContainerError;
use vmgs::FileDevice;
use vmgs::OnProblem;
use vmgs::OpenOptions;
use vmgs::OpenPolicy;
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
    /// The broker's thread cannot be started.
    #[error("cannot start the thread that owns the VMGS file")]
    Thread(#[source] io::Error),
}

/// Opens the store at `path`, and starts its broker, whose thread ends with its last client.
///
/// If there is no file, one is created; an empty file is formatted.
pub(crate) fn open(path: &Path) -> Result<VmgsClient, VmgsError> {
    if !path.exists() {
        tracing::info!(path = %path.display(), "creating the VMGS file");
        create(path).map_err(|source| VmgsError::Create {
            path: path.into(),
            source,
        })?;
    }
    let device =
        FileDevice::open(path, Container::Detect, Access::ReadWrite).map_err(|source| {
            VmgsError::Open {
                path: path.into(),
                source,
            }
        })?;
    let policy = OpenPolicy {
        on_empty: OnProblem::Format,
        ..OpenPolicy::default()
    };
    let store = Vmgs::open_or_format(Box::new(device), OpenOptions::default(), policy);
    let store = store.map_err(|source| VmgsError::Store {
        path: path.into(),
        source,
    })?;
    let (client, _thread) = Broker::spawn(store).map_err(VmgsError::Thread)?;
    Ok(client)
}

/// Creates a file with an empty store at `path`. If this fails there is no file.
fn create(path: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .prefix(".vmgs-")
        .tempfile_in(parent)?;
    vmgs::create_file(temporary.as_file(), NEW_STORE, Container::Vhd1, None)?;
    let file = temporary.as_file().try_clone()?;
    let device = FileDevice::new(file, Container::Vhd1, Access::ReadWrite)?;
    drop(Vmgs::format(Box::new(device), OpenOptions::default())?);
    temporary.persist_noclobber(path)?;
    Ok(())
}
