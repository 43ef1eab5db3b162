//! Opens a file as a disk.

use crate::Caching;
use crate::Engine;
use crate::FileDisk;
use crate::FileDiskError;
use crate::Format;
use crate::created::CreatedFile;
use crate::direct;
use crate::direct::Alignment;
use crate::format;
use crate::format::EDGE;
use crate::lock;
use crate::lock::LockError;
use crate::qcow2;
use crate::qcow2::Qcow2Disk;
use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::DiskInfo;
use disk_backend::SECTOR;
use rustix::fs::Access;
use rustix::fs::OFlags;
use std::fs::File;
use std::fs::FileType;
use std::fs::OpenOptions;
use std::io;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

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
    /// The size in bytes to create the file with if it does not exist, or none not to create it.
    pub create: Option<u64>,
    /// Whether I/O goes through the host's page cache.
    pub caching: Caching,
}

/// An open and locked file, and its format.
pub(crate) struct OpenedFile<'a> {
    pub(crate) path: &'a Path,
    pub(crate) file: File,
    /// Its size in bytes.
    pub(crate) len: u64,
    /// The last bytes.
    pub(crate) tail: [u8; EDGE],
    /// Not [`Format::Auto`].
    pub(crate) format: Format,
    /// The file was created for this.
    pub(crate) created: Option<CreatedFile>,
}

/// Opens and locks the file at `path` as a disk.
pub fn open(path: &Path, options: FileOptions) -> Result<Arc<dyn Disk>, FileDiskError> {
    let opened = OpenedFile::open(path, &options)?;
    Ok(match opened.format {
        Format::Qcow2 => {
            require_page_cache(path, options.caching)?;
            Arc::new(Qcow2Disk::open(opened, &options)?)
        }
        _ => Arc::new(FileDisk::new(opened, &options)?),
    })
}

/// Checks that the file at `path` can be opened as a disk, as far as this can be known without locking it. Nothing is
/// created or changed.
pub fn check(path: &Path, options: FileOptions) -> Result<(), FileDiskError> {
    let open_error = |source| FileDiskError::Open {
        path: path.to_owned(),
        source,
    };
    if options.create.is_some() && !path.exists() {
        let directory = rustix::fs::access(host_file::directory(path), Access::WRITE_OK);
        return directory.map_err(|error| FileDiskError::Create {
            path: path.to_owned(),
            source: error.into(),
        });
    }
    let file = open_file(path, DiskAccess::ReadOnly)?;
    if options.access == DiskAccess::ReadWrite {
        rustix::fs::access(path, Access::WRITE_OK).map_err(|e| open_error(e.into()))?;
    }
    let opened = OpenedFile::examine(path, file, options.format)?;
    if opened.format == Format::Qcow2 {
        require_page_cache(path, options.caching)?;
        return qcow2::check(&opened.file, path);
    }
    FileDisk::find_disk(&opened, options.format)?;
    let found = logical_block(&opened.file).map_err(open_error)?;
    let block = options.sector.unwrap_or(found);
    caching(&opened.file, path, block, options.caching).map(|_| ())
}

impl<'a> OpenedFile<'a> {
    /// Opens and locks the file at `path`.
    pub(crate) fn open(path: &'a Path, options: &FileOptions) -> Result<Self, FileDiskError> {
        let created = match options.create {
            None => None,
            Some(size) => {
                CreatedFile::create(path, size).map_err(|source| FileDiskError::Create {
                    path: path.to_owned(),
                    source,
                })?
            }
        };
        let file = open_locked(path, options.access)?;
        Ok(Self {
            created,
            ..Self::examine(path, file, options.format)?
        })
    }

    fn examine(path: &'a Path, file: File, format: Format) -> Result<Self, FileDiskError> {
        let io = |operation, source| FileDiskError::Io {
            operation,
            path: path.to_owned(),
            source,
        };
        // Works for block devices too, whose metadata has size 0.
        let len = (&file)
            .seek(SeekFrom::End(0))
            .map_err(|e| io("find the size of", e))?;
        let edge = |at: u64| {
            let mut edge = [0; EDGE];
            let end = (len - at).min(EDGE as u64) as usize;
            file.read_exact_at(&mut edge[..end], at)?;
            Ok(edge)
        };
        let head = edge(0).map_err(|e| io("read the start of", e))?;
        let tail = match len.checked_sub(EDGE as u64) {
            Some(at) => edge(at).map_err(|e| io("read the end of", e))?,
            None => [0; EDGE],
        };
        let format = match format {
            Format::Auto => format::find(&head, &tail).format(path)?,
            format => format,
        };
        Ok(Self {
            path,
            file,
            len,
            tail,
            format,
            created: None,
        })
    }
}

/// Opens the file at `path`, and locks it against others.
pub(crate) fn open_locked(path: &Path, access: DiskAccess) -> Result<File, FileDiskError> {
    let file = open_file(path, access)?;
    lock::lock(&file, access).map_err(|e| match e {
        LockError::Held(holder) => FileDiskError::InUse {
            path: path.to_owned(),
            holder,
        },
        LockError::Io(source) => FileDiskError::Io {
            operation: "lock",
            path: path.to_owned(),
            source,
        },
    })?;
    Ok(file)
}

fn open_file(path: &Path, access: DiskAccess) -> Result<File, FileDiskError> {
    let open_error = |source| FileDiskError::Open {
        path: path.to_owned(),
        source,
    };
    let require_disk = |kind: FileType| match kind.is_file() || kind.is_block_device() {
        true => Ok(()),
        false => Err(FileDiskError::NotADisk {
            path: path.to_owned(),
        }),
    };
    // Before it is opened, which has effects on some devices.
    require_disk(std::fs::metadata(path).map_err(open_error)?.file_type())?;
    let mut options = OpenOptions::new();
    // O_NONBLOCK: opening what has become a FIFO must not block. O_EXCL: a block device that the host has mounted must
    // not be written.
    options.read(true).custom_flags(libc::O_NONBLOCK);
    if access == DiskAccess::ReadWrite {
        options.write(true);
        options.custom_flags(libc::O_NONBLOCK | libc::O_EXCL);
    }
    let opened = options.open(path).and_then(|file| {
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
        Ok((file.metadata()?, file))
    });
    let (metadata, file) = opened.map_err(open_error)?;
    require_disk(metadata.file_type())?;
    Ok(file)
}

/// `info` with the logical block size that was asked for, if one was.
pub(crate) fn with_sector(
    mut info: DiskInfo,
    path: &Path,
    sector: Option<u32>,
) -> Result<DiskInfo, FileDiskError> {
    let set = info.set_logical_block(sector.unwrap_or(info.logical_block));
    set.map_err(|source| FileDiskError::BlockSize {
        path: path.to_owned(),
        source,
    })?;
    Ok(info)
}

/// Has I/O on `file`, whose guest uses blocks of `block` bytes, use the page cache or not. Returns what direct I/O asks for.
pub(crate) fn caching(
    file: &File,
    path: &Path,
    block: u32,
    caching: Caching,
) -> Result<Option<Alignment>, FileDiskError> {
    if caching == Caching::PageCache {
        return Ok(None);
    }
    let alignment = direct::turn_on(file).map_err(|source| FileDiskError::NoDirectIo {
        path: path.to_owned(),
        source,
    })?;
    if !block.is_multiple_of(alignment.block) {
        return Err(FileDiskError::DirectBlocks {
            path: path.to_owned(),
            needed: alignment.block,
            block,
        });
    }
    Ok(Some(alignment))
}

/// Refuses direct I/O, for formats whose tables are not aligned.
fn require_page_cache(path: &Path, caching: Caching) -> Result<(), FileDiskError> {
    match caching {
        Caching::PageCache => Ok(()),
        Caching::Direct => Err(FileDiskError::DirectQcow2 {
            path: path.to_owned(),
        }),
    }
}

/// The logical block size of a block device, else 512.
pub(crate) fn logical_block(file: &File) -> io::Result<u32> {
    match file.metadata()?.file_type().is_block_device() {
        true => Ok(rustix::fs::ioctl_blksszget(file)?),
        false => Ok(SECTOR as u32),
    }
}

/// The block size of the device or file system, limited to what guests support.
pub(crate) fn physical_block(file: &File) -> io::Result<u32> {
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
