//! Reading a snapshot. Everything but guest RAM is checked at once.

use crate::DamageKind;
use crate::Digest;
use crate::INDEX_FILE;
use crate::MANIFEST_FILE;
use crate::MAX_MANIFEST_LEN;
use crate::MEMORY_FILE;
use crate::Manifest;
use crate::ManifestError;
use crate::MemoryIndex;
use crate::STATE_FILE;
use crate::SnapshotError;
use crate::VMGS_FILE;
use crate::memory;
use host_file::Allowed;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

/// A snapshot whose manifest, state and index were read and checked. Guest RAM is checked by [`Snapshot::verify`].
#[derive(Debug)]
pub struct Snapshot {
    dir: PathBuf,
    manifest: Manifest,
    state: Vec<u8>,
    index: MemoryIndex,
    memory: File,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound => SnapshotError::Missing { path },
        _ => SnapshotError::Io {
            operation,
            path,
            source,
        },
    }
}

/// Opens a file of the snapshot, and finds out its length.
fn open(path: &Path) -> Result<(File, u64), SnapshotError> {
    let file = host_file::open_input(path, Allowed::Regular).map_err(failed("open", path))?;
    let metadata = file.metadata().map_err(failed("open", path))?;
    Ok((file, metadata.len()))
}

/// Reads a file of which `len` bytes are expected, and no more than that.
fn read(path: &Path, file: &File, len: u64) -> Result<Vec<u8>, SnapshotError> {
    let mut bytes = Vec::new();
    file.take(len)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    Ok(bytes)
}

impl Snapshot {
    /// Opens the snapshot in `dir`.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        let manifest = Self::read_manifest(dir)?;
        let file = |name: &str| {
            let path = dir.join(name);
            let expected = manifest.file(name).map_or(0, |file| file.size);
            let (file, found) = open(&path)?;
            if found != expected {
                return Err(SnapshotError::Length {
                    path,
                    found,
                    expected,
                });
            }
            Ok((path, file, expected))
        };
        let checked = |name: &str| {
            let (path, file, len) = file(name)?;
            let bytes = read(&path, &file, len)?;
            let digest = manifest.file(name).and_then(|file| file.digest.as_deref());
            if digest.and_then(Digest::parse) != Some(Digest::of(&bytes)) {
                let kind = DamageKind::Digest;
                return Err(SnapshotError::Damaged { path, kind });
            }
            Ok((path, bytes))
        };
        let (_, state) = checked(STATE_FILE)?;
        let (path, index) = checked(INDEX_FILE)?;
        let damaged = |kind| SnapshotError::Damaged { path, kind };
        let index = match MemoryIndex::decode(&index) {
            Err(kind) => return Err(damaged(kind)),
            Ok(index) if Some(index.id) != manifest.id_bytes() => {
                return Err(damaged(DamageKind::OtherSnapshot));
            }
            Ok(index)
                if index.memory_size != manifest.memory.size
                    || index.chunk_size != manifest.memory.chunk_size =>
            {
                return Err(damaged(DamageKind::OtherMemory));
            }
            Ok(index) => index,
        };
        if manifest.file(VMGS_FILE).is_some() {
            file(VMGS_FILE)?;
        }
        let (path, memory, _) = file(MEMORY_FILE)?;
        let footer = memory::check_footer(&memory, index.id, index.memory_size);
        footer
            .map_err(failed("read", &path))?
            .map_err(|kind| SnapshotError::Damaged { path, kind })?;
        Ok(Self {
            dir: dir.into(),
            manifest,
            state,
            index,
            memory,
        })
    }

    /// Reads and checks the manifest alone.
    pub fn read_manifest(dir: &Path) -> Result<Manifest, SnapshotError> {
        match dir.metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(SnapshotError::NoSnapshot { path: dir.into() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::NoSnapshot { path: dir.into() });
            }
            Err(error) => return Err(failed("open", dir)(error)),
        }
        let path = dir.join(MANIFEST_FILE);
        let (file, len) = open(&path)?;
        let manifest = match len > MAX_MANIFEST_LEN {
            true => Err(ManifestError::TooLong { len }),
            false => Manifest::unseal(&read(&path, &file, len)?),
        };
        manifest.map_err(|source| SnapshotError::Manifest { path, source })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The state of the units.
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// The file with guest RAM, which is to be mapped privately.
    pub fn memory_path(&self) -> PathBuf {
        self.dir.join(MEMORY_FILE)
    }

    /// The file with the VMGS store, if the machine has one. It is not to be written.
    pub fn vmgs_path(&self) -> Option<PathBuf> {
        let file = self.manifest.file(VMGS_FILE);
        file.map(|_| self.dir.join(VMGS_FILE))
    }

    /// Compares guest RAM and the VMGS store with their digests. `progress` is told how many bytes of how many of guest
    /// RAM were looked at.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), SnapshotError> {
        if let (Some(record), Some(path)) = (self.manifest.file(VMGS_FILE), self.vmgs_path()) {
            let (file, _) = open(&path)?;
            let digest = Digest::of(&read(&path, &file, record.size)?);
            if record.digest.as_deref().and_then(Digest::parse) != Some(digest) {
                let kind = DamageKind::Digest;
                return Err(SnapshotError::Damaged { path, kind });
            }
        }
        let path = self.memory_path();
        memory::verify(&self.memory, &self.index, progress)
            .map_err(failed("read", &path))?
            .map_err(|kind| SnapshotError::Damaged { path, kind })
    }
}
