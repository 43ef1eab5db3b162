//! Paths and metadata of the workspace, and the cache directory.

use anyhow::Context;
use cargo_metadata::Metadata;
use cargo_metadata::MetadataCommand;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The workspace's root directory.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The `cargo` that runs us, started in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The workspace's packages, without resolving their dependencies.
pub(crate) fn metadata() -> anyhow::Result<Metadata> {
    MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()
        .context("cannot read the workspace's metadata")
}

/// The directory for downloads: `$OPENVMM_CACHE`, or `openvmm` in the user's cache directory.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(cache) = absolute("OPENVMM_CACHE") {
        return Ok(cache);
    }
    let user = absolute("XDG_CACHE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".cache")))
        .context("none of OPENVMM_CACHE, XDG_CACHE_HOME and HOME names a directory")?;
    Ok(user.join("openvmm"))
}

/// The cache, locked against changes by other processes.
pub(crate) struct LockedCache {
    pub(crate) dir: PathBuf,
    _lock: File,
}

/// Locks the cache, which is created if it does not exist. Waits for other processes.
pub(crate) fn locked_cache() -> anyhow::Result<LockedCache> {
    let dir = cache()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join("lock");
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    lock.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(LockedCache { dir, _lock: lock })
}
