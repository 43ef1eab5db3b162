//! A disk in a file or on a block device.

use super::BlockDevice;
use super::writeback;
use crate::container::Container;
use crate::container::ContainerError;
use crate::container::DiskShape;
use crate::options::StoreAccess;
use rustix::fs::FallocateFlags;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// Number of consecutive bytes written before the kernel is asked to start writeback. Otherwise writeback
/// of a large file would start only at the flush, and the medium would be idle until then.
const WRITEBACK_LEN: u64 = 512 << 10;

/// A disk in a file: the whole file (raw), or the part before the footer of a fixed VHD.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    path: Option<PathBuf>,
    shape: DiskShape,
    access: StoreAccess,
    /// The last consecutive bytes written for which writeback was not started.
    unstarted: Range<u64>,
}

impl FileDevice {
    /// Opens and locks the file at `path`. The lock is shared if the file is opened read-only, and
    /// exclusive otherwise. It is advisory, and held until the device is dropped.
    pub fn open(
        path: &Path,
        container: Container,
        access: StoreAccess,
    ) -> Result<Self, ContainerError> {
        let opening = |source| ContainerError::Open {
            path: path.into(),
            source,
        };
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(access == StoreAccess::ReadWrite)
                // A named pipe is not waited for. Files and block devices are the same with it.
                .custom_flags(libc::O_NONBLOCK)
                .open(path)
                .map_err(opening)?;
            let kind = file.metadata().map_err(opening)?.file_type();
            if !kind.is_file() && !kind.is_block_device() {
                return Err(opening(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is neither a regular file nor a block device",
                )));
            }
            let locked = match access {
                StoreAccess::ReadOnly => file.try_lock_shared(),
                StoreAccess::ReadWrite => file.try_lock(),
            };
            match locked {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(ContainerError::InUse { path: path.into() });
                }
                // Some file systems do not support locks.
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(path = %path.display(), %error, "cannot lock the store");
                }
            }
            // A process that replaces a store locks the old file until the new file is in its place. If
            // this file was opened before that and locked after, it is the old one, and changes to it
            // would be lost.
            if is_at(&file, path).map_err(opening)? {
                let mut device = Self::new(file, container, access)?;
                device.path = Some(path.into());
                return Ok(device);
            }
        }
    }

    /// The disk in an open file, which is not locked.
    pub fn new(
        file: File,
        container: Container,
        access: StoreAccess,
    ) -> Result<Self, ContainerError> {
        let shape = DiskShape::of(&file, container)?;
        Ok(Self {
            file,
            path: None,
            shape,
            access,
            unstarted: 0..0,
        })
    }

    /// The device, with another name for the file in messages.
    #[must_use]
    pub fn known_as(mut self, path: &Path) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The location of the disk in the file.
    pub fn shape(&self) -> &DiskShape {
        &self.shape
    }

    /// Records that these bytes were written, and starts writeback after [`WRITEBACK_LEN`] bytes.
    fn note_written(&mut self, written: Range<u64>) {
        if written.start != self.unstarted.end {
            self.unstarted.start = written.start;
        }
        self.unstarted.end = written.end;
        if self.unstarted.end - self.unstarted.start < WRITEBACK_LEN {
            return;
        }
        let run = std::mem::replace(&mut self.unstarted, written.end..written.end);
        // This affects speed only: the flush writes back what is left, and waits for all of it.
        if let Err(error) = writeback::start(&self.file, &run) {
            tracing::debug!(%error, "cannot start writeback early");
        }
    }
}

/// The bytes that a file of `len` bytes with this number of blocks of 512 bytes needs, if that is more than is `free`.
fn lacking(len: u64, blocks: u64, free: u64) -> Option<u64> {
    let needed = len.saturating_sub(blocks.saturating_mul(512));
    (needed > free).then_some(needed)
}

/// Whether `path` refers to this open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, found) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((opened.dev(), opened.ino()) == (found.dev(), found.ino()))
}

impl Drop for FileDevice {
    fn drop(&mut self) {
        // Closing the file does not always unlock it: a child process that another thread is starting
        // also has it open, until it executes its program.
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
        self.access == StoreAccess::ReadOnly
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|end| *end <= self.shape.len) else {
            // The VHD footer may follow the disk.
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes at {offset} are outside the disk", buf.len()),
            ));
        };
        self.file.write_all_at(buf, offset)?;
        self.note_written(offset..end);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&mut self) -> io::Result<()> {
        // A block device has its space.
        if !self.file.metadata()?.is_file() {
            return Ok(());
        }
        let len = self.shape.len;
        // Allocating may fail halfway and keep what it got, so it is not tried if it cannot succeed.
        let host = rustix::fs::fstatvfs(&self.file)?;
        let free = host.f_bavail.saturating_mul(host.f_frsize);
        if let Some(missing) = lacking(len, self.file.metadata()?.blocks(), free) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("{missing} more bytes are needed, and {free} are free"),
            ));
        }
        let allocated = rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len)
        });
        match allocated.map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    path = self.path.as_ref().map(|path| path.display().to_string()),
                    "the file system cannot reserve space for the store: writes fail if the disk becomes full"
                );
                Ok(())
            }
            result => result,
        }
    }

    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at).filter(|at| *at < self.shape.len)),
            Err(Errno::NXIO) => Ok(None),
            // Devices and some file systems do not know their holes.
            Err(_) => Ok(Some(offset)),
        }
    }

    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("store"), dir.path().join("other"));
        std::fs::write(&path, [0; 8192]).unwrap();
        std::fs::write(&other, [1; 8192]).unwrap();
        let file = File::open(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        std::fs::rename(&other, &path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        let raw = Container::Raw { sector_size: 512 };
        let mut device = FileDevice::open(&path, raw, StoreAccess::ReadOnly).unwrap();
        let mut sector = [0; 512];
        device.read_at(0, &mut sector).unwrap();
        assert_eq!(sector, [1; 512]);
    }

    #[test]
    fn a_sparse_file_gets_its_space() {
        let dir = tempfile::tempdir().unwrap();
        let raw = Container::Raw { sector_size: 512 };
        let sparse = |len: u64| {
            let path = dir.path().join(len.to_string());
            File::create_new(&path).unwrap().set_len(len).unwrap();
            path
        };
        let blocks = |path: &Path| std::fs::metadata(path).unwrap().blocks();
        let path = sparse(1 << 20);
        let mut device = FileDevice::open(&path, raw, StoreAccess::ReadWrite).unwrap();
        assert!(!device.is_read_only());
        assert_eq!(blocks(&path), 0);
        device.allocate().unwrap();
        assert_eq!(blocks(&path), 2048);
        drop(device);
        // What is not open for writing cannot be given space.
        let mut device = FileDevice::open(&path, raw, StoreAccess::ReadOnly).unwrap();
        assert!(device.is_read_only());
        device.allocate().unwrap_err();
    }

    #[test]
    fn a_file_lacks_what_neither_it_nor_the_host_has() {
        assert_eq!(lacking(8192, 0, 8192), None);
        assert_eq!(lacking(8192, 0, 8191), Some(8192));
        assert_eq!(lacking(8192, 9, 3584), None);
        assert_eq!(lacking(8192, 9, 3583), Some(3584));
        assert_eq!(lacking(8192, 24, 0), None);
    }

    #[test]
    fn what_is_no_disk_is_refused_at_once() {
        use rustix::fs::Mode;
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [pipe.as_path(), dir.path(), Path::new("/dev/null")] {
            for access in [StoreAccess::ReadOnly, StoreAccess::ReadWrite] {
                let error = FileDevice::open(path, Container::Detect, access).unwrap_err();
                assert!(
                    matches!(error, ContainerError::Open { .. }),
                    "{path:?}: {error}"
                );
            }
        }
    }

    /// Replaces the file again and again, as a process does that honours its lock.
    #[test]
    fn the_file_that_is_open_and_locked_is_the_one_at_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        std::fs::write(&path, [0; 8192]).unwrap();
        let replacing = {
            let (path, other) = (path.clone(), dir.path().join("other"));
            move || {
                for _ in 0..2000 {
                    std::fs::write(&other, [1; 8192]).unwrap();
                    let old = File::open(&path).unwrap();
                    while old.try_lock().is_err() {}
                    std::fs::rename(&other, &path).unwrap();
                    old.unlock().unwrap();
                }
            }
        };
        let thread = std::thread::spawn(replacing);
        let raw = Container::Raw { sector_size: 512 };
        while !thread.is_finished() {
            match FileDevice::open(&path, raw, StoreAccess::ReadWrite) {
                Ok(device) => assert!(is_at(&device.file, &path).unwrap()),
                Err(error) => assert!(matches!(error, ContainerError::InUse { .. }), "{error}"),
            }
        }
        thread.join().unwrap();
    }

    /// The kernel refuses to synchronize a device that has nothing to synchronize.
    #[test]
    fn flushing_synchronizes_the_file() {
        let shape = DiskShape {
            sector_size: 512,
            len: 8192,
            vhd_id: None,
        };
        let mut device = FileDevice {
            file: File::open("/dev/zero").unwrap(),
            path: None,
            shape,
            access: StoreAccess::ReadWrite,
            unstarted: 0..0,
        };
        let error = device.flush().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn writes_of_any_order_and_length_are_kept() {
        let len = 4 << 20;
        let file = tempfile::tempfile().unwrap();
        file.set_len(len as u64).unwrap();
        let raw = Container::Raw { sector_size: 512 };
        let mut device = FileDevice::new(file, raw, StoreAccess::ReadWrite).unwrap();
        let mut expected = vec![0; len];
        // Consecutive, backwards, with gaps, overlapping; shorter and longer than WRITEBACK_LEN.
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
        // The VHD footer may follow the disk.
        for (at, size) in [(len as u64, 512), (len as u64 - 512, 1024), (u64::MAX, 512)] {
            let error = device.write_at(at, &vec![0; size]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
