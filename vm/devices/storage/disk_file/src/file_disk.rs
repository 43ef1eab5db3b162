//! A file or block device as a disk.

use crate::Engine;
use crate::LockHolder;
use crate::engine::OpenFile;
use crate::lock;
use crate::lock::LockError;
use crate::ring;
use crate::ring::RingQueue;
use crate::threads::Pool;
use crate::threads::PoolQueue;
use disk_backend::BlockSizeError;
use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::DiskError;
use disk_backend::DiskInfo;
use disk_backend::DiskQueue;
use disk_backend::SECTOR;
use log_limit::LogLimit;
use rustix::fs::OFlags;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use vhd_footer::FOOTER_LEN;
use vhd_footer::FixedVhd;
use vhd_footer::FooterError;

/// A guest can cause errors with each reset of its device.
static LOG_LIMIT: LogLimit = LogLimit::new();

/// The format of a disk file.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Format {
    /// A fixed VHD if the file ends with a VHD footer, else raw.
    #[default]
    #[n(0)]
    Auto,
    /// The whole file is the disk.
    #[n(1)]
    Raw,
    /// A fixed VHD.
    #[n(2)]
    Vhd,
}

/// How to open a file as a disk.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub struct FileOptions {
    /// Whether the disk can be written.
    pub access: DiskAccess,
    /// The format of the file.
    pub format: Format,
    /// How I/O is made asynchronous.
    pub engine: Engine,
    /// The logical block size for the guest in bytes, or none for that of the block device (512 for a file).
    pub sector: Option<u32>,
}

/// Why a file cannot be used as a disk.
#[derive(Debug, thiserror::Error)]
pub enum FileDiskError {
    /// It cannot be opened.
    #[error("failed to open the disk {}{}", path.display(), hint(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// It cannot be examined or locked.
    #[error("failed to {operation} the disk {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a socket or the like.
    #[error("the disk {} is neither a regular file nor a block device", path.display())]
    NotADisk {
        /// The file.
        path: PathBuf,
    },
    /// Another user of the file writes it, or reads it and this one would write.
    #[error("the disk {} is in use by {holder}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// The process that uses it.
        holder: LockHolder,
    },
    /// It has no sectors.
    #[error("the disk {} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its size is not a multiple of the sector size.
    #[error(
        "the disk {} has {size} bytes, which is not a multiple of 512; `truncate -s %512` makes it one",
        path.display()
    )]
    PartialSector {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Guests cannot have such sectors on it.
    #[error("the disk {} cannot have these sectors", path.display())]
    BlockSize {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: BlockSizeError,
    },
    /// It is not a fixed VHD, or a damaged one.
    #[error("the disk {} cannot be used as a VHD", path.display())]
    Vhd {
        /// The file.
        path: PathBuf,
        /// What is wrong with the footer.
        #[source]
        source: FooterError,
    },
    /// io_uring was requested and is unavailable.
    #[error("the host does not allow io_uring for the disk {}", path.display())]
    NoIoUring {
        /// The file.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (add `,ro` if it need not be written)"
        }
        io::ErrorKind::ResourceBusy => " (is it mounted, or another VM's disk?)",
        _ => "",
    }
}

/// A file or block device as a disk, locked against others for as long as it is open.
pub struct FileDisk {
    file: Arc<OpenFile>,
    /// Not [`Engine::Auto`].
    engine: Engine,
    /// Created when the first queue needs it.
    pool: OnceLock<Arc<Pool>>,
}

impl FileDisk {
    /// Opens and locks the file at `path`.
    pub fn open(path: &Path, options: FileOptions) -> Result<Self, FileDiskError> {
        let io_error = |operation, source| FileDiskError::Io {
            operation,
            path: path.to_owned(),
            source,
        };
        let file = open(path, options.access)?;
        lock::lock(&file, options.access).map_err(|e| match e {
            LockError::Held(holder) => FileDiskError::InUse {
                path: path.to_owned(),
                holder,
            },
            LockError::Io(source) => io_error("lock", source),
        })?;
        // Works for block devices too, whose metadata has size 0.
        let len = (&file)
            .seek(SeekFrom::End(0))
            .map_err(|e| io_error("find the size of", e))?;
        let (size, id) = find_disk(path, &file, len, options.format)?;
        let physical_block =
            physical_block(&file).map_err(|e| io_error("find the block size of", e))?;
        let mut info = DiskInfo {
            name: path.display().to_string(),
            sectors: size / SECTOR,
            logical_block: SECTOR as u32,
            physical_block,
            access: options.access,
            discard_granularity: match options.access {
                DiskAccess::ReadWrite => Some(physical_block),
                DiskAccess::ReadOnly => None,
            },
            id,
        };
        let logical_block = match options.sector {
            Some(sector) => sector,
            None => logical_block(&file).map_err(|e| io_error("find the sector size of", e))?,
        };
        info.set_logical_block(logical_block)
            .map_err(|source| FileDiskError::BlockSize {
                path: path.to_owned(),
                source,
            })?;
        let engine = choose_engine(path, options.engine)?;
        Ok(Self {
            file: Arc::new(OpenFile::new(file, info)),
            engine,
            pool: OnceLock::new(),
        })
    }
}

fn open(path: &Path, access: DiskAccess) -> Result<File, FileDiskError> {
    let mut options = OpenOptions::new();
    // O_NONBLOCK: opening a FIFO must not block. O_EXCL: a block device that the host has mounted must not be written.
    options.read(true).custom_flags(libc::O_NONBLOCK);
    if access == DiskAccess::ReadWrite {
        options.write(true);
        options.custom_flags(libc::O_NONBLOCK | libc::O_EXCL);
    }
    let metadata = options.open(path).and_then(|file| {
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
        Ok((file.metadata()?, file))
    });
    let (metadata, file) = metadata.map_err(|source| FileDiskError::Open {
        path: path.to_owned(),
        source,
    })?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let path = path.to_owned();
        return Err(FileDiskError::NotADisk { path });
    }
    Ok(file)
}

/// Finds the size of the disk in a file of `len` bytes, and its ID.
fn find_disk(
    path: &Path,
    file: &File,
    len: u64,
    format: Format,
) -> Result<(u64, Option<[u8; 16]>), FileDiskError> {
    let path = || path.to_owned();
    let mut footer = [0; FOOTER_LEN];
    let before_footer = len.checked_sub(FOOTER_LEN as u64);
    if let Some(before) = before_footer
        && format != Format::Raw
    {
        file.read_exact_at(&mut footer, before)
            .map_err(|source| FileDiskError::Io {
                operation: "read the end of",
                path: path(),
                source,
            })?;
    }
    let (size, id) = if format == Format::Vhd || vhd_footer::is_footer(&footer) {
        let vhd = FixedVhd::parse(&footer, before_footer.unwrap_or(0));
        let vhd = vhd.map_err(|source| FileDiskError::Vhd {
            path: path(),
            source,
        })?;
        (vhd.size, Some(vhd.id.to_bytes_le()))
    } else {
        (len, None)
    };
    match size {
        0 => Err(FileDiskError::Empty { path: path() }),
        size if !size.is_multiple_of(SECTOR) => {
            Err(FileDiskError::PartialSector { path: path(), size })
        }
        size => Ok((size, id)),
    }
}

/// The logical block size of a block device, else 512.
fn logical_block(file: &File) -> io::Result<u32> {
    match file.metadata()?.file_type().is_block_device() {
        true => Ok(rustix::fs::ioctl_blksszget(file)?),
        false => Ok(SECTOR as u32),
    }
}

/// The block size of the device or file system, limited to what guests support.
fn physical_block(file: &File) -> io::Result<u32> {
    let metadata = file.metadata()?;
    let size = if metadata.file_type().is_block_device() {
        rustix::fs::ioctl_blkpbszget(file)?
    } else {
        u32::try_from(metadata.blksize()).unwrap_or(4096)
    };
    if size.is_power_of_two() {
        return Ok(size.clamp(512, 4096));
    }
    Ok(512)
}

fn choose_engine(path: &Path, engine: Engine) -> Result<Engine, FileDiskError> {
    match (engine, ring::probe()) {
        (Engine::Threads, _) => Ok(Engine::Threads),
        (_, Ok(())) => Ok(Engine::IoUring),
        (Engine::Auto, Err(error)) => {
            tracing::debug!(path = %path.display(), %error, "io_uring is unavailable; disk I/O uses threads");
            Ok(Engine::Threads)
        }
        (Engine::IoUring, Err(source)) => Err(FileDiskError::NoIoUring {
            path: path.to_owned(),
            source,
        }),
    }
}

impl Disk for FileDisk {
    fn info(&self) -> &DiskInfo {
        &self.file.info
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.file.flush()
    }

    fn open_queue(
        self: Arc<Self>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>> {
        if self.engine != Engine::Threads {
            match RingQueue::open(self.file.clone(), depth, events) {
                Ok(queue) => return Ok(Box::new(queue)),
                // The probe succeeded, so the host is short of memory or descriptors.
                Err(error) => {
                    if let Some(suppressed) = LOG_LIMIT.allow() {
                        tracing::warn!(
                            disk = self.file.info.name,
                            %error,
                            suppressed,
                            "failed to open an io_uring ring for a disk queue; it uses threads"
                        );
                    }
                }
            }
        }
        let pool = self
            .pool
            .get_or_init(|| Arc::new(Pool::new(self.file.clone())));
        Ok(Box::new(PoolQueue::open(pool.clone(), events)?))
    }
}

#[cfg(test)]
#[path = "file_disk_test.rs"]
mod tests;
