//! A file or block device as a disk.

use super::BlockDevice;
use super::writeback;
use crate::container::Container;
use crate::container::ContainerError;
use crate::container::DiskShape;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes written in a row before the kernel is asked to start on them. Left alone it starts when the
/// flush tells it to, and the medium is idle while a large file is copied into the cache.
const WRITEBACK_LEN: u64 = 512 << 10;

/// A disk in a file: all of it (raw), or what a fixed VHD has in front of its footer.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    shape: DiskShape,
    access: crate::Access,
    /// What was written last, as far as it is one run that the kernel was not asked to start on.
    unstarted: Range<u64>,
}

impl FileDevice {
    /// Opens the file at `path`, and locks it: against writers if it is opened for reading only,
    /// against everybody otherwise. The lock is advisory, and lasts as long as the device.
    pub fn open(
        path: &Path,
        container: Container,
        access: crate::Access,
    ) -> Result<Self, ContainerError> {
        let file = OpenOptions::new()
            .read(true)
            .write(access == crate::Access::ReadWrite)
            .open(path)
            .map_err(|source| ContainerError::Open {
                path: path.into(),
                source,
            })?;
        let locked = match access {
            crate::Access::ReadOnly => file.try_lock_shared(),
            crate::Access::ReadWrite => file.try_lock(),
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ContainerError::InUse { path: path.into() });
            }
            // Some file systems have no locks.
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %path.display(), %error, "the store cannot be locked");
            }
        }
        Self::new(file, container, access)
    }

    /// The disk in a file that is open already.
    pub fn new(
        file: File,
        container: Container,
        access: crate::Access,
    ) -> Result<Self, ContainerError> {
        let shape = DiskShape::of(&file, container)?;
        Ok(Self {
            file,
            shape,
            access,
            unstarted: 0..0,
        })
    }

    /// Where the disk is in the file.
    pub fn shape(&self) -> &DiskShape {
        &self.shape
    }

    /// Notes that these bytes were written, and has the kernel start on them once they are many.
    fn note_written(&mut self, written: Range<u64>) {
        if written.start != self.unstarted.end {
            self.unstarted.start = written.start;
        }
        self.unstarted.end = written.end;
        if self.unstarted.end - self.unstarted.start < WRITEBACK_LEN {
            return;
        }
        let run = std::mem::replace(&mut self.unstarted, written.end..written.end);
        // Only speed depends on it: the flush starts what was not started, and waits for all.
        if let Err(error) = writeback::start(&self.file, &run) {
            tracing::debug!(%error, "writing to the medium was not started early");
        }
    }
}

impl Drop for FileDevice {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is just starting has the file open too,
        // until it executes its program.
        let _ = self.file.unlock();
    }
}

impl BlockDevice for FileDevice {
    fn sector_size(&self) -> u32 {
        self.shape.sector_size
    }

    fn sector_count(&self) -> u64 {
        self.shape.len / u64::from(self.shape.sector_size)
    }

    fn is_read_only(&self) -> bool {
        self.access == crate::Access::ReadOnly
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|end| *end <= self.shape.len) else {
            // Past the end there may be a footer.
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes at {offset} are not on the disk", buf.len()),
            ));
        };
        self.file.write_all_at(buf, offset)?;
        self.note_written(offset..end);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
