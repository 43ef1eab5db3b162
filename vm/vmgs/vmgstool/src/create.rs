//! Creating stores.

use crate::cli;
use crate::open::Place;
use crate::open::read_key;
use crate::output;
use crate::output::Existing;
use anyhow::Context;
use anyhow::bail;
use std::fs::File;
use std::path::Path;
use vmgs::Access;
use vmgs::Container;
use vmgs::DiskShape;
use vmgs::FileDevice;
use vmgs::Key;
use vmgs::OpenOptions;
use vmgs::Vmgs;

/// Bytes of a store whose size is not given.
const DEFAULT_SIZE: u64 = vmgs_format::DEFAULT_BLOCK_COUNT as u64 * vmgs_format::BLOCK_SIZE as u64;

pub(crate) fn create(place: Place, args: &cli::Create) -> anyhow::Result<()> {
    // There is one algorithm; that it was named is all that matters.
    let key = match (&args.key_path, args.encryption_algorithm) {
        (Some(path), Some(cli::Algorithm::AesGcm)) => Some(read_key(path)?),
        _ => None,
    };
    let existing = if args.force_create {
        Existing::Replace
    } else {
        Existing::AskOrRefuse
    };
    let size = args.file_size.unwrap_or(DEFAULT_SIZE);
    create_store(place, &args.store.file_path, size, existing, |store| {
        key.as_ref().map_or(Ok(()), |key| Ok(store.encrypt(key)?))
    })
}

/// Makes a store with what `fill` puts in it. The file appears whole or not at all; one that it
/// replaces was whole until then.
pub(crate) fn create_store(
    place: Place,
    path: &Path,
    size: u64,
    existing: Existing,
    fill: impl FnOnce(&mut Vmgs) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let context = || format!("creating the store {}", path.display());
    let mut vhd_id = None;
    if let Ok(metadata) = std::fs::metadata(path) {
        if !metadata.is_file() {
            bail!("{} is not a file", path.display());
        }
        output::may_replace(&path.display().to_string(), existing)?;
        vhd_id = old_id(path, size)?;
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.into());
    let temporary = output::temporary_beside(&path).with_context(context)?;
    vmgs::create_file(temporary.as_file(), size, place.container, vhd_id).with_context(context)?;
    let file = temporary.reopen().with_context(context)?;
    let device = FileDevice::new(file, place.container, Access::ReadWrite).with_context(context)?;
    let mut store = Vmgs::format(Box::new(device), OpenOptions::default()).with_context(context)?;
    fill(&mut store).with_context(context)?;
    drop(store);
    temporary.as_file().sync_all().with_context(context)?;
    let persisted = match existing {
        Existing::Replace => temporary.persist(&path),
        // Somebody may have made one since it was looked for, and was not asked about.
        _ if !path.exists() => temporary.persist_noclobber(&path),
        _ => temporary.persist(&path),
    };
    persisted
        .map_err(|error| error.error)
        .with_context(context)?;
    tracing::info!(path = %path.display(), size, "created a store");
    Ok(())
}

/// The identifier of the disk that is replaced, if it has the same size: it stays the same disk.
fn old_id(path: &Path, size: u64) -> anyhow::Result<Option<[u8; 16]>> {
    match FileDevice::open(path, Container::Vhd1, Access::ReadWrite) {
        Ok(device) => Ok(device.shape().vhd_id.filter(|_| device.shape().len == size)),
        Err(error @ vmgs::ContainerError::InUse { .. }) => Err(error.into()),
        Err(_) => {
            // Whatever it is, it is no store of this size.
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            Ok(DiskShape::of(&file, Container::Vhd1)
                .ok()
                .filter(|shape| shape.len == size)
                .and_then(|shape| shape.vhd_id))
        }
    }
}

/// Makes a key file.
pub(crate) fn write_key(path: &Path, key: &Key, existing: Existing) -> anyhow::Result<()> {
    output::write_file(path, existing, |out| Ok(out.write_all(key.as_bytes())?))
}
