//! A qcow2 image as a disk.

use crate::Engine;
use crate::FileDiskError;
use crate::FileOptions;
use crate::lock;
use crate::open;
use crate::open::OpenedFile;
use crate::qcow2::Header;
use crate::qcow2::Qcow2Error;
use crate::qcow2::backing;
use crate::threads::Pool;
use crate::threads::PoolQueue;
use disk_backend::Buffers;
use disk_backend::Completion;
use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::DiskError;
use disk_backend::DiskInfo;
use disk_backend::DiskOperation;
use disk_backend::DiskQueue;
use disk_backend::Extent;
use disk_backend::SECTOR;
use disk_backend::Space;
use imago::FormatAccess;
use imago::file::File as Storage;
use parking_lot::RwLock;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Bytes that are copied at once between guest memory and the image.
const PIECE: usize = 1 << 20;

/// A qcow2 image as a disk. Its I/O is done by threads.
pub(crate) struct Qcow2Disk {
    image: Arc<Image>,
    pool: OnceLock<Arc<Pool>>,
}

/// The open image.
struct Image {
    info: DiskInfo,
    /// Locked for writing by what makes clusters invalid that other operations may be using.
    format: RwLock<FormatAccess<Storage>>,
    /// A flush failed: as for a raw file.
    flush_failed: AtomicBool,
    /// The same open file as that of `format`.
    file: File,
}

impl Qcow2Disk {
    pub(crate) fn open(
        opened: OpenedFile<'_>,
        options: &FileOptions,
    ) -> Result<Self, FileDiskError> {
        let OpenedFile { path, file, .. } = opened;
        let qcow2 = |source| FileDiskError::Qcow2 {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let io = |operation, source| FileDiskError::Io {
            operation,
            path: path.to_owned(),
            source,
        };
        let header = Header::read(&file).map_err(qcow2)?;
        if options.engine == Engine::IoUring {
            return Err(qcow2(Qcow2Error::Unsupported {
                what: "aio=io_uring for it is".into(),
                advice: "",
            }));
        }
        let is_writable = options.access == DiskAccess::ReadWrite;
        let info = DiskInfo {
            name: path.display().to_string(),
            sectors: header.size / SECTOR,
            logical_block: SECTOR as u32,
            physical_block: 4096,
            access: options.access,
            // Version 2 cannot tell clusters that are zero from those of the backing file.
            discard_granularity: (is_writable && header.version > 2).then_some(header.cluster),
            id: None,
        };
        let info = open::with_sector(info, path, options.sector)?;
        let same = file
            .try_clone()
            .map_err(|e| io("duplicate the descriptor of", e))?;
        let format = backing::qcow2(file, path, options.access, 0).map_err(qcow2)?;
        Ok(Self {
            image: Arc::new(Image {
                info,
                format: RwLock::new(format),
                flush_failed: AtomicBool::new(false),
                file: same,
            }),
            pool: OnceLock::new(),
        })
    }
}

impl Image {
    fn run(&self, operation: DiskOperation) -> Result<(), DiskError> {
        self.info.check(&operation)?;
        let name = operation.name();
        let offset = operation.extent().offset;
        let result = match operation {
            DiskOperation::Read { offset, buffers } => self.read(offset, &buffers),
            DiskOperation::Write { offset, buffers } => self.write(offset, &buffers),
            DiskOperation::Flush => return self.flush(),
            DiskOperation::Discard { extent } => self.discard(extent),
            DiskOperation::WriteZeroes { extent, space } => self.write_zeroes(extent, space),
        };
        result.map_err(|source| DiskError::Io {
            operation: name,
            offset,
            source,
        })
    }

    fn read(&self, offset: u64, buffers: &Buffers) -> io::Result<()> {
        let mut bytes = vec![0; PIECE.min(buffers.len() as usize)];
        let format = self.format.read();
        for at in (0..buffers.len()).step_by(PIECE) {
            let count = PIECE.min((buffers.len() - at) as usize);
            format.read(&mut bytes[..count], offset + at)?;
            buffers.copy_from(at, &bytes[..count]);
        }
        Ok(())
    }

    fn write(&self, offset: u64, buffers: &Buffers) -> io::Result<()> {
        let mut bytes = vec![0; PIECE.min(buffers.len() as usize)];
        let format = self.format.read();
        for at in (0..buffers.len()).step_by(PIECE) {
            let count = PIECE.min((buffers.len() - at) as usize);
            buffers.copy_to(at, &mut bytes[..count]);
            format.write(&bytes[..count], offset + at)?;
        }
        Ok(())
    }

    fn discard(&self, extent: Extent) -> io::Result<()> {
        let mut format = self.format.write();
        match format.discard_to_any(extent.offset, extent.len) {
            // A hint.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, extent: Extent, space: Space) -> io::Result<()> {
        let Extent { offset, len } = extent;
        let result = match space {
            Space::Keep => self.format.read().write_zeroes(offset, len),
            Space::Release => self.format.write().discard_to_zero(offset, len),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let mut at = 0;
                while at < len {
                    let zeroes = Buffers::zeroes(len - at);
                    self.write(offset + at, &zeroes)?;
                    at += zeroes.len();
                }
                Ok(())
            }
            result => result,
        }
    }

    /// Writes what is kept in memory of the image's tables to its file.
    fn write_tables(&self) -> io::Result<()> {
        if self.info.access == DiskAccess::ReadOnly {
            return Ok(());
        }
        self.format.read().flush()
    }

    fn flush(&self) -> Result<(), DiskError> {
        if self.flush_failed.load(Ordering::Acquire) {
            return Err(DiskError::FlushFailed);
        }
        let flushed = self
            .write_tables()
            .and_then(|()| rustix::fs::fdatasync(&self.file).map_err(io::Error::from));
        flushed.map_err(|source| {
            self.flush_failed.store(true, Ordering::Release);
            DiskError::Io {
                operation: "flush",
                offset: 0,
                source,
            }
        })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = self.write_tables() {
            let disk = &self.info.name;
            tracing::error!(disk, %error, "failed to write the tables of a qcow2 image");
        }
        // Closing does the same, but the kernel may close a little later.
        lock::unlock(&self.file);
    }
}

impl Disk for Qcow2Disk {
    fn info(&self) -> &DiskInfo {
        &self.image.info
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.image.flush()
    }

    fn open_queue(
        self: Arc<Self>,
        _depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>> {
        let name = &self.image.info.name;
        let pool = self.pool.get_or_init(|| Arc::new(Pool::new(name)));
        Ok(Box::new(Qcow2Queue {
            queue: Some(PoolQueue::open(pool.clone(), events)?),
            image: self.image.clone(),
        }))
    }
}

struct Qcow2Queue {
    image: Arc<Image>,
    /// `None` only while this is dropped.
    queue: Option<PoolQueue>,
}

impl DiskQueue for Qcow2Queue {
    fn submit(&mut self, token: u64, operation: DiskOperation) {
        if let Some(queue) = &mut self.queue {
            let image = self.image.clone();
            queue.start(token, move || image.run(operation));
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        match &mut self.queue {
            Some(queue) => queue.poll(completions),
            None => Ok(()),
        }
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        match &mut self.queue {
            Some(queue) => queue.wait(completions),
            None => Ok(()),
        }
    }
}

impl Drop for Qcow2Queue {
    /// Whatever ends the process next, the file has what the guest wrote.
    fn drop(&mut self) {
        // Waits for its operations.
        self.queue = None;
        if let Err(error) = self.image.write_tables() {
            let disk = &self.image.info.name;
            tracing::error!(disk, %error, "failed to write the tables of a qcow2 image");
        }
    }
}
