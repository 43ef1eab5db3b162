//! Creating stores.

use crate::cli;
use crate::open::Opener;
use crate::open::read_key;
use crate::output;
use crate::output::Existing;
use anyhow::Context;
use anyhow::bail;
use std::path::Path;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::Key;
use vmgs::OpenOptions;
use vmgs::StoreAccess;
use vmgs::Vmgs;

/// Default size of a store in bytes.
const DEFAULT_SIZE: u64 = vmgs_format::DEFAULT_BLOCK_COUNT as u64 * vmgs_format::BLOCK_SIZE as u64;

pub(crate) fn create(opener: Opener, args: &cli::Create) -> anyhow::Result<()> {
    // There is only one algorithm.
    let key = match (&args.key_path, args.encryption_algorithm) {
        (Some(path), Some(cli::Algorithm::AesGcm)) => Some(read_key(path)?),
        _ => None,
    };
    let existing = Existing::AskOrRefuse.unless(args.force_create);
    let size = args.file_size.unwrap_or(DEFAULT_SIZE);
    create_store(opener, &args.store.file_path, size, existing, |store| {
        key.as_ref().map_or(Ok(()), |key| Ok(store.encrypt(key)?))
    })
}

/// Creates a store, and fills it with `fill`. The file appears completely or not at all; a file that it
/// replaces is intact until then.
pub(crate) fn create_store(
    opener: Opener,
    path: &Path,
    size: u64,
    existing: Existing,
    fill: impl FnOnce(&mut Vmgs) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let context = || format!("creating the store {}", path.display());
    let existing = check_place(path, existing)?;
    // Lock the old file until it is replaced, so that no other process changes it.
    let old = old_disk(path)?;
    let vhd_id = old
        .as_ref()
        .and_then(|old| old.shape().vhd_id.filter(|_| old.shape().len == size));
    let path = path.canonicalize().unwrap_or_else(|_| path.into());
    let temporary = output::temporary_beside(&path).with_context(context)?;
    vmgs::create_file(temporary.as_file(), size, opener.container, vhd_id).with_context(context)?;
    let file = temporary.reopen().with_context(context)?;
    let device =
        FileDevice::new(file, opener.container, StoreAccess::ReadWrite).with_context(context)?;
    let mut store = Vmgs::format(Box::new(device), OpenOptions::default()).with_context(context)?;
    fill(&mut store).with_context(context)?;
    drop(store);
    temporary.as_file().sync_all().with_context(context)?;
    let persisted = match existing {
        Existing::Replace => temporary.persist(&path),
        // Do not replace a file that was created since the check: the user was not asked about it.
        Existing::AskOrRefuse | Existing::AskOrReplace => temporary.persist_noclobber(&path),
    };
    drop(old);
    persisted
        .map_err(|error| error.error)
        .with_context(context)?;
    tracing::info!(path = %path.display(), size, "created a store");
    Ok(())
}

/// Fails if there is a file at `path` that is not to be replaced. Returns what to do about a file that
/// exists when the store is complete.
pub(crate) fn check_place(path: &Path, existing: Existing) -> anyhow::Result<Existing> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => bail!("{} is not a file", path.display()),
        Ok(_) => {
            output::may_replace(&path.display().to_string(), existing)?;
            Ok(Existing::Replace)
        }
        Err(_) => Ok(existing),
    }
}

/// Opens the disk that is replaced, if there is one. A new disk of the same size gets its GUID.
fn old_disk(path: &Path) -> anyhow::Result<Option<FileDevice>> {
    // Other errors mean that the file is not a disk.
    match FileDevice::open(path, Container::Vhd1, StoreAccess::ReadWrite) {
        Ok(device) => Ok(Some(device)),
        Err(error @ vmgs::ContainerError::InUse { .. }) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Creates a key file.
pub(crate) fn write_key(path: &Path, key: &Key, existing: Existing) -> anyhow::Result<()> {
    output::write_file(path, existing, |out| Ok(out.write_all(key.as_bytes())?))
}
