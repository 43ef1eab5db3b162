//! Opening stores and reading keys.

use crate::cli::OptionalKey;
use crate::headers;
use anyhow::Context;
use anyhow::bail;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use vmgs::Container;
use vmgs::Error;
use vmgs::ErrorKind;
use vmgs::FileDevice;
use vmgs::HeaderPolicy;
use vmgs::HeaderScan;
use vmgs::Key;
use vmgs::OpenOptions;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use zeroize::Zeroizing;

/// The largest file that is taken for a store.
const MAX_FILE_LEN: u64 = 4 << 30;

/// How stores are kept in files.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) container: Container,
}

/// Reads a key file.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<Key> {
    // With room for all of it, so that no copy stays behind when it grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64));
    let file = File::open(path).with_context(|| format!("opening the key {}", path.display()))?;
    // One byte more than a key shows that the file is longer.
    file.take(33)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading the key {}", path.display()))?;
    Key::from_slice(&bytes)
        .with_context(|| format!("the key {} does not have 32 bytes", path.display()))
}

impl Place {
    pub(crate) fn device(&self, path: &Path, access: StoreAccess) -> anyhow::Result<FileDevice> {
        if let Ok(metadata) = std::fs::metadata(path)
            && metadata.len() > MAX_FILE_LEN
        {
            bail!(
                "{} has {} bytes, more than the 4 GiB a store may have",
                path.display(),
                metadata.len()
            );
        }
        FileDevice::open(path, self.container, access)
            .with_context(|| format!("opening the store {}", path.display()))
    }

    /// Opens a store.
    pub(crate) fn open(&self, path: &Path, access: StoreAccess) -> anyhow::Result<Vmgs> {
        self.open_with(path, access, HeaderPolicy::FallBack)
    }

    pub(crate) fn open_with(
        &self,
        path: &Path,
        access: StoreAccess,
        headers: HeaderPolicy,
    ) -> anyhow::Result<Vmgs> {
        let device = self.device(path, access)?;
        let options = OpenOptions {
            access,
            headers,
            ..OpenOptions::default()
        };
        Vmgs::open(Box::new(device), options).map_err(|error| {
            if error.kind() == ErrorKind::Corrupt {
                self.show_headers(path);
            }
            anyhow::Error::new(error).context(format!("opening the store {}", path.display()))
        })
    }

    /// What the headers of a store say that cannot be opened. On standard error: standard output is
    /// for answers.
    fn show_headers(&self, path: &Path) {
        let scan = self
            .device(path, StoreAccess::ReadOnly)
            .and_then(|mut device| Ok(HeaderScan::read(&mut device)?));
        if let Ok(scan) = scan {
            let _ = std::io::stderr().write_all(headers::text(&scan).as_bytes());
        }
    }

    /// Opens a store and unlocks it if a key is given.
    pub(crate) fn open_unlocked(
        &self,
        path: &Path,
        access: StoreAccess,
        key: &OptionalKey,
    ) -> anyhow::Result<Vmgs> {
        // A key that cannot be read is no reason to touch the store.
        let key = key.key_path.as_deref().map(read_key).transpose()?;
        let mut store = self.open(path, access)?;
        unlock(&mut store, key.as_ref())?;
        Ok(store)
    }
}

pub(crate) fn unlock(store: &mut Vmgs, key: Option<&Key>) -> anyhow::Result<()> {
    match key {
        Some(key) => store.unlock(key).context("unlocking the store"),
        None => {
            if store.is_encrypted() {
                tracing::warn!("the store is encrypted, and no key was given");
            }
            Ok(())
        }
    }
}

/// Fails if the store has a key that was not given.
pub(crate) fn require_unlocked(store: &Vmgs) -> anyhow::Result<()> {
    if store.is_locked() {
        return Err(Error::Locked).context("the store is encrypted: its key is needed");
    }
    Ok(())
}
