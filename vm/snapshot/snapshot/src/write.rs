//! Writing a snapshot: aside, to the disk, and then under its name.

use crate::Digest;
use crate::INDEX_FILE;
use crate::MANIFEST_FILE;
use crate::MAX_INDEX_LEN;
use crate::MAX_MANIFEST_LEN;
use crate::MAX_STATE_LEN;
use crate::MEMORY_FILE;
use crate::STATE_FILE;
use crate::VERSION;
use crate::VMGS_FILE;
use crate::WriteError;
use crate::manifest::DiskRecord;
use crate::manifest::FileRecord;
use crate::manifest::Manifest;
use crate::manifest::MemoryRecord;
use crate::manifest::ProcessorRecord;
use crate::manifest::UnitRecord;
use crate::memory;
use guest_memory::GuestMemory;
use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a snapshot is made of. Guest RAM does not change meanwhile.
pub struct Contents<'a> {
    /// The program that writes it, and its version.
    pub product: &'a str,
    /// The configuration of the machine, for people.
    pub machine: Value,
    /// The encoded configuration.
    pub config: &'a [u8],
    /// The processors that the guest was told of, and the host.
    pub processor: ProcessorRecord,
    /// The machine's disks.
    pub disks: Vec<DiskRecord>,
    /// The units whose state is in `state`.
    pub units: Vec<UnitRecord>,
    /// The state of the units.
    pub state: &'a [u8],
    /// Guest RAM.
    pub memory: &'a GuestMemory,
    /// The VMGS store, if there is one.
    pub vmgs: Option<&'a [u8]>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The size of guest RAM in bytes.
    pub memory: u64,
    /// How much of it was stored, in bytes.
    pub stored: u64,
}

/// The directory that `dir` is to be in, and its name there.
fn place(dir: &Path) -> Result<(PathBuf, OsString), WriteError> {
    let name = || WriteError::Name {
        path: dir.to_owned(),
    };
    let parent = match dir.parent().ok_or_else(name)? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    Ok((parent.into(), dir.file_name().ok_or_else(name)?.into()))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io {
        operation,
        path,
        source,
    }
}

/// Checks that a snapshot can be written to `dir`: it does not exist, and its parent does. Nothing is created.
pub fn check_target(dir: &Path) -> Result<(), WriteError> {
    let (parent, _) = place(dir)?;
    match dir.symlink_metadata() {
        Ok(_) => {
            return Err(WriteError::Exists { path: dir.into() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look for", dir)(error)),
    }
    let metadata = parent.metadata().map_err(failed("open", &parent))?;
    if !metadata.is_dir() {
        return Err(failed("open", &parent)(io::ErrorKind::NotADirectory.into()));
    }
    Ok(())
}

fn new_file(path: &Path) -> Result<File, WriteError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path).map_err(failed("create", path))
}

/// Writes a small file, to the disk.
fn write_file(dir: &Path, name: &str, bytes: &[u8], limit: u64) -> Result<FileRecord, WriteError> {
    let len = bytes.len() as u64;
    if len > limit {
        let what = "state";
        return Err(WriteError::TooLarge { what, len, limit });
    }
    let path = dir.join(name);
    let mut file = new_file(&path)?;
    file.write_all(bytes).map_err(failed("write", &path))?;
    file.sync_all().map_err(failed("write to disk", &path))?;
    Ok(FileRecord {
        name: name.to_owned(),
        size: len,
        digest: Some(Digest::of(bytes).to_string()),
    })
}

/// As [`write_file`], with holes for pages of zeros.
fn write_sparse(dir: &Path, name: &str, bytes: &[u8]) -> Result<FileRecord, WriteError> {
    let path = dir.join(name);
    let file = new_file(&path)?;
    let len = bytes.len() as u64;
    file.set_len(len).map_err(failed("extend", &path))?;
    memory::write_pages(&file, bytes, 0).map_err(failed("write", &path))?;
    file.sync_all().map_err(failed("write to disk", &path))?;
    Ok(FileRecord {
        name: name.to_owned(),
        size: len,
        digest: Some(Digest::of(bytes).to_string()),
    })
}

/// Writes a snapshot to `dir`, which does not exist. `progress` is told how many bytes of how many of guest RAM were
/// looked at.
///
/// It is written to a directory `DIR.tmp-…` beside it, and gets its name when all of it is on the disk. If this process
/// is killed before, that directory remains and is no snapshot. The directory can be read by its owner only: RAM has the
/// guest's secrets.
pub fn write(
    dir: &Path,
    contents: Contents<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written, WriteError> {
    check_target(dir)?;
    let (parent, mut name) = place(dir)?;
    name.push(".tmp-");
    let mut builder = tempfile::Builder::new();
    builder.permissions(Permissions::from_mode(0o700));
    let aside = builder.prefix(&name).tempdir_in(&parent);
    let aside = aside.map_err(failed("create a directory in", &parent))?;
    let mut id = [0; 16];
    getrandom::fill(&mut id)?;

    let path = aside.path().join(MEMORY_FILE);
    let file = new_file(&path)?;
    let memory = memory::write(&file, &path, contents.memory, id, progress)?;
    file.sync_all().map_err(failed("write to disk", &path))?;
    let size = contents.memory.layout().ram_size();
    let mut files = vec![FileRecord {
        name: MEMORY_FILE.to_owned(),
        size: size + memory::FOOTER,
        digest: None,
    }];
    let index = memory.index.encode();
    files.push(write_file(aside.path(), INDEX_FILE, &index, MAX_INDEX_LEN)?);
    files.push(write_file(
        aside.path(),
        STATE_FILE,
        contents.state,
        MAX_STATE_LEN,
    )?);
    if let Some(vmgs) = contents.vmgs {
        files.push(write_sparse(aside.path(), VMGS_FILE, vmgs)?);
    }
    let manifest = Manifest {
        format: Manifest::format(),
        version: VERSION,
        id: Digest(id).to_string(),
        product: contents.product.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        created: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default(),
        machine: contents.machine,
        config: data_encoding::BASE64.encode(contents.config),
        processor: contents.processor,
        memory: MemoryRecord {
            size,
            stored: memory.stored,
            chunk_size: memory.index.chunk_size,
            chunks: memory.index.chunks.len() as u64,
        },
        disks: contents.disks,
        units: contents.units,
        files,
    };
    let path = aside.path().join(MANIFEST_FILE);
    let sealed = manifest
        .seal()
        .map_err(|error| failed("write", &path)(error.into()))?;
    write_file(
        aside.path(),
        MANIFEST_FILE,
        sealed.as_bytes(),
        MAX_MANIFEST_LEN,
    )?;
    sync_directory(aside.path())?;
    publish(aside.path(), dir)?;
    // It has another name now.
    let _ = aside.keep();
    sync_directory(&parent)?;
    Ok(Written {
        memory: size,
        stored: memory.stored,
    })
}

fn sync_directory(path: &Path) -> Result<(), WriteError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(failed("write to disk", path))
}

fn publish(aside: &Path, dir: &Path) -> Result<(), WriteError> {
    let renamed = match rustix::fs::renameat_with(CWD, aside, CWD, dir, RenameFlags::NOREPLACE) {
        // The file system does not know the flag.
        Err(Errno::INVAL | Errno::NOSYS) => {
            check_target(dir)?;
            std::fs::rename(aside, dir)
        }
        result => result.map_err(io::Error::from),
    };
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(WriteError::Exists { path: dir.into() })
        }
        result => result.map_err(failed("rename the finished snapshot to", dir)),
    }
}
