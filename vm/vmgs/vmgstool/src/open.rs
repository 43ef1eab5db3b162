//! Opening stores and reading keys.

use crate::cli::OptionalKey;
use crate::headers;
use crate::input;
use crate::kind;
use anyhow::Context;
use anyhow::bail;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use vmgs::Container;
use vmgs::ContainerError;
use vmgs::Error;
use vmgs::ErrorKind;
use vmgs::FileDevice;
use vmgs::HeaderPolicy;
use vmgs::HeaderScan;
use vmgs::Key;
use vmgs::OpenOptions;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_format::FileId;
use vmgs_format::FileIdRange;
use zeroize::Zeroizing;

/// Maximum length in bytes of a file that contains a store.
const MAX_FILE_LEN: u64 = 4 << 30;

/// Opens stores in files of one format.
#[derive(Clone, Copy)]
pub(crate) struct Opener {
    pub(crate) container: Container,
}

/// Reads a key file.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<Key> {
    // Allocated with spare capacity: growing the vector would leave a copy of the key in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64));
    let file = input::open(path).context("reading the key")?;
    // Read one more byte than a key has, to detect longer files.
    file.take(33)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading the key file {}", path.display()))?;
    Key::from_slice(&bytes).with_context(|| {
        format!(
            "the key file {} does not have exactly 32 bytes",
            path.display()
        )
    })
}

impl Opener {
    /// Opens the disk that contains a store.
    pub(crate) fn device(&self, path: &Path, access: StoreAccess) -> anyhow::Result<FileDevice> {
        kind::check_store(path)?;
        if let Ok(metadata) = std::fs::metadata(path)
            && metadata.len() > MAX_FILE_LEN
        {
            bail!(
                "{} has {} bytes, more than the maximum of 4 GiB",
                path.display(),
                metadata.len()
            );
        }
        FileDevice::open(path, self.container, access).map_err(|error| {
            let hint = match error {
                ContainerError::Footer(_) => " (if it is a bare disk, give --raw)",
                _ => "",
            };
            let context = format!("opening the store {}{hint}", path.display());
            anyhow::Error::new(error).context(context)
        })
    }

    /// Opens a store.
    pub(crate) fn open(&self, path: &Path, access: StoreAccess) -> anyhow::Result<Vmgs> {
        self.open_with(path, access, HeaderPolicy::FallBack)
    }

    /// Opens a store, with a choice of what to do if a header is damaged.
    pub(crate) fn open_with(
        &self,
        path: &Path,
        access: StoreAccess,
        headers: HeaderPolicy,
    ) -> anyhow::Result<Vmgs> {
        let device = self.device(path, access)?;
        let options = OpenOptions { access, headers };
        Vmgs::open(Box::new(device), options).map_err(|error| {
            if error.kind() == ErrorKind::Corrupt {
                self.print_headers(path);
            }
            anyhow::Error::new(error).context(format!("opening the store {}", path.display()))
        })
    }

    /// Prints the headers of a store that cannot be opened, on standard error.
    fn print_headers(&self, path: &Path) {
        let scan = self
            .device(path, StoreAccess::ReadOnly)
            .and_then(|mut device| Ok(HeaderScan::read(&mut device)?));
        if let Ok(scan) = scan {
            let _ = std::io::stderr().write_all(headers::text(&scan).as_bytes());
        }
    }

    /// Opens a store, and unlocks it if a key is given.
    pub(crate) fn open_unlocked(
        &self,
        path: &Path,
        access: StoreAccess,
        key: &OptionalKey,
    ) -> anyhow::Result<Vmgs> {
        // Read the key first, so that the store is not opened if that fails.
        let key = key.key_path.as_deref().map(read_key).transpose()?;
        let mut store = self.open(path, access)?;
        unlock(&mut store, key.as_ref())?;
        Ok(store)
    }
}

/// `id`, unless it is beyond the tables, where no file can be.
pub(crate) fn possible(id: FileId) -> anyhow::Result<FileId> {
    match id.range() {
        FileIdRange::OutOfRange => Err(Error::NotAllocated(id).into()),
        FileIdRange::File | FileIdRange::Table => Ok(id),
    }
}

/// Unlocks a store if a key is given.
pub(crate) fn unlock(store: &mut Vmgs, key: Option<&Key>) -> anyhow::Result<()> {
    match key {
        Some(key) => store.unlock(key).context("unlocking the store"),
        None => {
            if store.is_encrypted() {
                tracing::warn!("the store is encrypted and no key was given");
            }
            Ok(())
        }
    }
}

/// Fails if the store is locked.
pub(crate) fn require_unlocked(store: &Vmgs) -> anyhow::Result<()> {
    if store.is_locked() {
        return Err(Error::Locked).context("this needs the store's key; give it with --key-path");
    }
    Ok(())
}
