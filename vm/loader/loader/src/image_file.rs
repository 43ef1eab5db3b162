//! Files that go into guest memory.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::path::PathBuf;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryError;
use vm_memory::ReadVolatile;

/// A file to be loaded, with the name it goes by in errors.
///
/// Its content is not trusted, and may change while it is read.
#[derive(Debug)]
pub struct ImageFile<F> {
    path: PathBuf,
    file: F,
    len: u64,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// It is a directory, a pipe, or another thing without a content of fixed length.
    #[error("{} is {found}; a regular file or a block device is needed", path.display())]
    NotAFile {
        /// What was to be opened.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read {} at offset {offset:#x}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The operating system's answer.
        source: io::Error,
    },
    /// It cannot be read into guest memory.
    #[error("cannot read {len} bytes of {} at offset {offset:#x} into guest memory at {gpa:#x}", path.display())]
    ReadInto {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// Where in guest memory.
        gpa: u64,
        /// How much, in bytes.
        len: u64,
        /// What failed.
        source: GuestMemoryError,
    },
}

impl ImageFile<File> {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::Open {
            path: path.into(),
            source,
        };
        // Before it is opened: opening a pipe would wait for a writer.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(FileError::NotAFile {
                path: path.into(),
                found: if kind.is_dir() {
                    "a directory"
                } else if kind.is_fifo() {
                    "a pipe"
                } else if kind.is_char_device() {
                    "a character device"
                } else {
                    "a socket"
                },
            });
        }
        Self::new(path.into(), File::open(path).map_err(failed)?)
    }
}

impl<F: Seek> ImageFile<F> {
    /// The open `file`, called `path` in errors.
    pub fn new(path: PathBuf, mut file: F) -> Result<Self, FileError> {
        match file.seek(SeekFrom::End(0)) {
            Ok(len) => Ok(Self { path, file, len }),
            Err(source) => Err(FileError::Read {
                path,
                offset: 0,
                source,
            }),
        }
    }

    /// What the file is called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length when it was opened, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<F: Read + Seek> ImageFile<F> {
    /// Fills `buf` from `offset`.
    pub(crate) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), FileError> {
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(buf))
            .map_err(|source| FileError::Read {
                path: self.path.clone(),
                offset,
                source,
            })
    }
}

impl<F: Seek + ReadVolatile> ImageFile<F> {
    /// Reads `len` bytes from `offset` straight into guest memory at `gpa`.
    pub(crate) fn read_into<M: GuestMemory>(
        &mut self,
        memory: &M,
        offset: u64,
        gpa: u64,
        len: u64,
    ) -> Result<(), FileError> {
        let count = usize::try_from(len).unwrap_or(usize::MAX);
        self.file
            .seek(SeekFrom::Start(offset))
            .map_err(GuestMemoryError::IOError)
            .and_then(|_| memory.read_exact_volatile_from(GuestAddress(gpa), &mut self.file, count))
            .map_err(|source| FileError::ReadInto {
                path: self.path.clone(),
                offset,
                gpa,
                len,
                source,
            })
    }
}
