//! A file or block device as a disk.

use crate::Engine;
use crate::FileDiskError;
use crate::FileOptions;
use crate::Format;
use crate::created::CreatedFile;
use crate::engine::OpenFile;
use crate::guard::FormatGuard;
use crate::open;
use crate::open::OpenedFile;
use crate::ring;
use crate::ring::RingQueue;
use crate::threads::Pool;
use crate::threads::ThreadsQueue;
use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::DiskError;
use disk_backend::DiskInfo;
use disk_backend::DiskQueue;
use disk_backend::SECTOR;
use log_limit::LogLimit;
use parking_lot::Mutex;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use vhd_footer::FOOTER_LEN;
use vhd_footer::FixedVhd;

/// A guest can cause errors with each reset of its device.
static LOG_LIMIT: LogLimit = LogLimit::new();

/// A file or block device as a disk, locked against others for as long as it is open.
pub struct FileDisk {
    file: Arc<OpenFile>,
    /// Not [`Engine::Auto`].
    engine: Engine,
    /// Created when the first queue needs it.
    pool: OnceLock<Arc<Pool>>,
    /// The file, if it was created for this disk and may go again.
    created: Mutex<Option<CreatedFile>>,
}

impl FileDisk {
    /// Opens and locks the file at `path`, which is not an image of a format with tables.
    pub fn open(path: &Path, options: FileOptions) -> Result<Self, FileDiskError> {
        let opened = OpenedFile::open(path, &options)?;
        match opened.format {
            Format::Qcow2 => Err(FileDiskError::Unsupported {
                path: path.to_owned(),
                format: "qcow2",
            }),
            _ => Self::new(opened, &options),
        }
    }

    pub(crate) fn new(
        opened: OpenedFile<'_>,
        options: &FileOptions,
    ) -> Result<Self, FileDiskError> {
        let path = opened.path;
        let io = |operation, source| FileDiskError::Io {
            operation,
            path: path.to_owned(),
            source,
        };
        let (size, id) = Self::find_disk(&opened, options.format)?;
        let file = opened.file;
        let logical_block =
            open::logical_block(&file).map_err(|e| io("find the sector size of", e))?;
        let physical_block =
            open::physical_block(&file).map_err(|e| io("find the block size of", e))?;
        let info = DiskInfo {
            name: path.display().to_string(),
            sectors: size / SECTOR,
            logical_block,
            physical_block,
            access: options.access,
            discard_granularity: match options.access {
                DiskAccess::ReadWrite => Some(physical_block),
                DiskAccess::ReadOnly => None,
            },
            id,
        };
        let info = open::with_sector(info, path, options.sector)?;
        let direct = open::caching(&file, path, info.logical_block, options.caching)?;
        let guard = match (options.format, opened.format) {
            (Format::Auto, Format::Vhd) => Some(FormatGuard::vhd(opened.tail)),
            (Format::Auto, _) => Some(FormatGuard::raw(size)),
            _ => None,
        };
        let engine = choose_engine(path, options.engine)?;
        Ok(Self {
            file: Arc::new(OpenFile::new(file, info, guard, direct)),
            engine,
            pool: OnceLock::new(),
            created: Mutex::new(opened.created),
        })
    }

    /// The size of the disk in the file, in bytes, and its ID. `given` is the format that the user gave.
    pub(crate) fn find_disk(
        opened: &OpenedFile<'_>,
        given: Format,
    ) -> Result<(u64, Option<[u8; 16]>), FileDiskError> {
        let path = || opened.path.to_owned();
        let (size, id) = if opened.format == Format::Vhd {
            let available = opened.len.saturating_sub(FOOTER_LEN as u64);
            let vhd = FixedVhd::parse(&opened.tail, available);
            let vhd = vhd.map_err(|source| FileDiskError::Vhd {
                path: path(),
                source,
            })?;
            // A file that was cut may end with what a guest wrote into the middle of its disk.
            if given == Format::Auto && vhd.size != available {
                return Err(FileDiskError::UnclearVhd {
                    path: path(),
                    size: vhd.size,
                    available,
                });
            }
            (vhd.size, Some(vhd.id.to_bytes_le()))
        } else {
            (opened.len, None)
        };
        match size {
            0 => Err(FileDiskError::Empty { path: path() }),
            size if !size.is_multiple_of(SECTOR) => {
                Err(FileDiskError::PartialSector { path: path(), size })
            }
            size => Ok((size, id)),
        }
    }
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

    fn keep(&self) {
        if let Some(file) = self.created.lock().take() {
            file.stays();
        }
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
            .get_or_init(|| Arc::new(Pool::new(&self.file.info.name)));
        let queue = ThreadsQueue::open(self.file.clone(), pool.clone(), events)?;
        Ok(Box::new(queue))
    }
}

#[cfg(test)]
#[path = "file_disk_test.rs"]
mod tests;
