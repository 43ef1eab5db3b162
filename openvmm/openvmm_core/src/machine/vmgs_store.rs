//! The VMGS file that keeps the VM's state, and its broker.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use vmgs::Container;
use vmgs::ContainerError;
use vmgs::FileDevice;
use vmgs::OnProblem;
use vmgs::OpenOptions;
use vmgs::OpenPolicy;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_broker::Broker;
use vmgs_broker::VmgsClient;

/// How large a new store is, in bytes: with room for a firmware image, its successor and the variables.
const NEW_STORE: u64 = 64 << 20;

/// Why a VMGS file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VmgsError {
    /// A new one cannot be made.
    #[error("cannot make the VMGS file {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It cannot be opened.
    #[error("cannot open the VMGS file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: ContainerError,
    },
    /// It holds no store that can be used.
    #[error("the VMGS file {} cannot be used", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: vmgs::Error,
    },
    /// The host gives no thread.
    #[error("failed to start the thread of the VMGS file")]
    Thread(#[source] io::Error),
}

/// Opens the store at `path`, which is made if there is no file, and formatted if the file is empty. The broker's
/// thread ends with its last client.
pub(crate) fn open(path: &Path) -> Result<VmgsClient, VmgsError> {
    if !path.exists() {
        tracing::info!(path = %path.display(), "making the VMGS file");
        create(path).map_err(|source| VmgsError::Create {
            path: path.into(),
            source,
        })?;
    }
    let device =
        FileDevice::open(path, Container::Detect, StoreAccess::ReadWrite).map_err(|source| {
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

/// A file with an empty store, at `path` whole or not at all.
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
    let device = FileDevice::new(file, Container::Vhd1, StoreAccess::ReadWrite)?;
    drop(Vmgs::format(Box::new(device), OpenOptions::default())?);
    temporary.persist_noclobber(path)?;
    Ok(())
}
