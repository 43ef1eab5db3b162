//! The file of file-backed guest RAM.

use crate::MemoryError;
use crate::PageKind;
use crate::mapping;
use rustix::fs::FallocateFlags;
use rustix::fs::FlockOperation;
use rustix::fs::MemfdFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use vm_memory::FileOffset;

/// How to restore the file if guest RAM cannot be created.
enum Undo {
    Nothing,
    /// Truncate it: it existed and was empty.
    Empty,
    /// Remove it: it did not exist.
    Remove,
}

/// An open, locked memory file of the right size. Dropping it undoes the changes to the file, unless
/// [`MemoryFile::keep`] was called.
pub(crate) struct MemoryFile {
    file: Arc<File>,
    path: PathBuf,
    undo: Undo,
}

fn error(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> MemoryError {
    MemoryError::File {
        operation,
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Opens or creates the file. Returns whether it was created.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        // Without waiting for a named pipe or a device; the type is checked later.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let at_once = OFlags::NONBLOCK | OFlags::NOCTTY;
            let options = options.custom_flags(at_once.bits().cast_signed());
            Ok((options.open(path)?, false))
        }
        Err(e) => Err(e),
    }
}

impl MemoryFile {
    pub(crate) fn open(path: &Path, size: u64) -> Result<Self, MemoryError> {
        let (file, created) = open(path).map_err(|e| error("open", path, e))?;
        // Only the holder of the lock may change the file, even if it was created here.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(MemoryError::FileInUse {
                    path: path.to_owned(),
                });
            }
            Err(e) => return Err(error("lock", path, e)),
        }
        let mut memory_file = Self {
            file: Arc::new(file),
            path: path.to_owned(),
            undo: if created { Undo::Remove } else { Undo::Nothing },
        };
        memory_file.size(size)?;
        Ok(memory_file)
    }

    /// Sets the size of an empty file, checks that of another one, and reserves the space.
    fn size(&mut self, size: u64) -> Result<(), MemoryError> {
        let path = &self.path;
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|e| error("get the size of", path, e))?;
        if !metadata.is_file() {
            return Err(MemoryError::NotRegular { path: path.clone() });
        }
        match metadata.len() {
            0 => {
                if matches!(self.undo, Undo::Nothing) {
                    self.undo = Undo::Empty;
                }
            }
            found if found == size => {}
            found => {
                return Err(MemoryError::FileSize {
                    path: path.clone(),
                    found,
                    expected: size,
                });
            }
        }
        // Also grows the file. A full file system is an error here, instead of a SIGBUS when the guest writes.
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(error("reserve space for", path, e)),
            }
        }
    }

    /// The file from byte `offset` on.
    pub(crate) fn at(&self, offset: u64) -> FileOffset {
        FileOffset::from_arc(self.file.clone(), offset)
    }

    /// Keeps the changes to the file. Its mappings keep it open and locked.
    pub(crate) fn keep(mut self) {
        self.undo = Undo::Nothing;
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let undone = match self.undo {
            Undo::Nothing => Ok(()),
            Undo::Empty => self.file.set_len(0),
            Undo::Remove => std::fs::remove_file(&self.path),
        };
        if let Err(error) = undone {
            tracing::warn!(path = %self.path.display(), %error, "cannot undo the changes to the memory file");
        }
    }
}

/// A memory file without a name, of `size` bytes.
pub(crate) fn unnamed(size: u64, pages: PageKind) -> Result<Arc<File>, MemoryError> {
    let mut flags = MemfdFlags::CLOEXEC;
    if let Some(page) = pages.pool_size() {
        let page = MemfdFlags::from_bits_retain(mapping::page_flag(page).cast_unsigned());
        flags |= MemfdFlags::HUGETLB | page;
    }
    let create = || -> io::Result<File> {
        let file = File::from(rustix::fs::memfd_create(c"guest-memory", flags)?);
        rustix::fs::ftruncate(&file, size)?;
        Ok(file)
    };
    create()
        .map(Arc::new)
        .map_err(|source| MemoryError::Memfd { size, source })
}

/// Opens the file with `size` bytes of saved RAM.
pub(crate) fn saved(path: &Path, size: u64) -> Result<Arc<File>, MemoryError> {
    let at_once = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(at_once.bits().cast_signed());
    let file = options.open(path).map_err(|e| error("open", path, e))?;
    let metadata = file.metadata();
    let metadata = metadata.map_err(|e| error("get the size of", path, e))?;
    if !metadata.is_file() {
        return Err(MemoryError::NotRegular { path: path.into() });
    }
    if metadata.len() < size {
        return Err(MemoryError::FileSize {
            path: path.into(),
            found: metadata.len(),
            expected: size,
        });
    }
    Ok(Arc::new(file))
}
