//! Files that go into guest memory.

use host_file::Allowed;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::path::PathBuf;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryError;

/// A file to be loaded, with the name it goes by in errors.
///
/// Its content is not trusted, and may change while it is read.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    /// Locked while its position is in use.
    file: Mutex<File>,
    len: u64,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// It cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// It is neither a regular file nor a block device: its content has no fixed length.
    #[error("{} is {found}; a regular file or a block device is needed", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read {} at offset {offset:#x}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Offset into the file, in bytes.
        offset: u64,
        /// The operating system's error.
        source: io::Error,
    },
    /// It cannot be read into guest memory.
    #[error("cannot read {len} bytes of {} at offset {offset:#x} into guest memory at {gpa:#x}", path.display())]
    ReadInto {
        /// The file.
        path: PathBuf,
        /// Offset into the file, in bytes.
        offset: u64,
        /// The guest-physical address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
        /// What failed.
        source: GuestMemoryError,
    },
}

impl ImageFile {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Self, ImageFileError> {
        let failed = |source| ImageFileError::Open {
            path: path.into(),
            source,
        };
        // Check before opening: opening a pipe would wait for a writer.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !Allowed::RegularOrBlock.allows(kind) {
            return Err(ImageFileError::NotAFile {
                path: path.into(),
                // It may have no name.
                found: match kind.is_fifo() {
                    true => "a pipe",
                    false => host_file::kind_name(kind),
                },
            });
        }
        Self::new(path.into(), File::open(path).map_err(failed)?)
    }

    /// The open `file`, called `path` in errors.
    pub fn new(path: PathBuf, mut file: File) -> Result<Self, ImageFileError> {
        match file.seek(SeekFrom::End(0)) {
            Ok(len) => Ok(Self {
                path,
                file: Mutex::new(file),
                len,
            }),
            Err(source) => Err(ImageFileError::Read {
                path,
                offset: 0,
                source,
            }),
        }
    }

    /// The name of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length of the file when it was opened, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of the file. The caller bounds its length.
    pub fn read(&self) -> Result<Vec<u8>, ImageFileError> {
        let mut bytes = vec![0; self.len as usize];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `buf` from `offset` in the file.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ImageFileError> {
        self.file
            .lock()
            .read_exact_at(buf, offset)
            .map_err(|source| ImageFileError::Read {
                path: self.path.clone(),
                offset,
                source,
            })
    }

    /// Reads `len` bytes from `offset` straight into guest memory at `gpa`.
    pub(crate) fn read_into<M: GuestMemory>(
        &self,
        memory: &M,
        offset: u64,
        gpa: u64,
        len: u64,
    ) -> Result<(), ImageFileError> {
        let count = usize::try_from(len).unwrap_or(usize::MAX);
        let mut file = self.file.lock();
        file.seek(SeekFrom::Start(offset))
            .map_err(GuestMemoryError::IOError)
            .and_then(|_| memory.read_exact_volatile_from(GuestAddress(gpa), &mut *file, count))
            .map_err(|source| ImageFileError::ReadInto {
                path: self.path.clone(),
                offset,
                gpa,
                len,
                source,
            })
    }
}
