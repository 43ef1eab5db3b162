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
use std::os::unix::fs::MetadataExt;
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
        let opening = |source| ContainerError::Open {
            path: path.into(),
            source,
        };
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(access == crate::Access::ReadWrite)
                .open(path)
                .map_err(opening)?;
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
            // Who replaces a store holds its lock until the new one is in its place. What was opened
            // before that and locked after it is the old one, and its changes would be lost.
            if is_at(&file, path).map_err(opening)? {
                return Self::new(file, container, access);
            }
        }
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

/// Whether `path` leads to this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, found) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((opened.dev(), opened.ino()) == (found.dev(), found.ino()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    #[test]
    fn a_file_that_was_replaced_is_not_the_one_at_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("store"), dir.path().join("other"));
        std::fs::write(&path, [0; 8192]).unwrap();
        std::fs::write(&other, [1; 8192]).unwrap();
        let file = File::open(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        std::fs::rename(&other, &path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        let raw = Container::Raw { sector_size: 512 };
        let mut device = FileDevice::open(&path, raw, Access::ReadOnly).unwrap();
        let mut sector = [0; 512];
        device.read_at(0, &mut sector).unwrap();
        assert_eq!(sector, [1; 512]);
    }

    #[test]
    fn runs_of_any_shape_are_written_where_they_belong() {
        let len = 4 << 20;
        let file = tempfile::tempfile().unwrap();
        file.set_len(len as u64).unwrap();
        let raw = Container::Raw { sector_size: 512 };
        let mut device = FileDevice::new(file, raw, Access::ReadWrite).unwrap();
        let mut expected = vec![0; len];
        // In a row, backwards, with gaps, over each other; short, as long as is started at once, longer.
        let step = WRITEBACK_LEN as usize;
        for (i, (at, size)) in [
            (0, step / 2),
            (step / 2, step / 2),
            (step, 512),
            (3 * step, 2 * step),
            (2 * step, step),
            (2 * step + 512, 512),
            (len - 512, 512),
            (0, 512),
        ]
        .into_iter()
        .enumerate()
        {
            let bytes = vec![i as u8 + 1; size];
            device.write_at(at as u64, &bytes).unwrap();
            expected[at..at + size].copy_from_slice(&bytes);
            let run = device.unstarted.clone();
            assert!(run.end - run.start < WRITEBACK_LEN, "{run:?}");
            assert_eq!(run.end, (at + size) as u64);
        }
        device.flush().unwrap();
        let mut found = vec![0; len];
        device.read_at(0, &mut found).unwrap();
        assert!(found == expected);
        // There may be a footer behind the disk.
        for (at, size) in [(len as u64, 512), (len as u64 - 512, 1024), (u64::MAX, 512)] {
            let error = device.write_at(at, &vec![0; size]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
