//! A device whose changes are held back: until they are released, or for ever.

use super::BlockDevice;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// A device that keeps writes and flushes in memory until it is [released](StagedDevice::release), and reads as if they
/// had been made. If it is dropped before, the device below is as it was. A clone is another handle to the same device.
#[derive(Clone)]
pub struct StagedDevice {
    sector_size: u32,
    sector_count: u64,
    read_only: bool,
    path: Option<PathBuf>,
    overlay: bool,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    device: Box<dyn BlockDevice>,
    /// What was held back; `None` once it is released.
    staged: Option<Staged>,
}

struct Staged {
    /// The writes and flushes in their order; `None` if they will never be made.
    log: Option<Vec<Operation>>,
    /// The present content of the sectors written, by the number of the sector.
    sectors: BTreeMap<u64, Vec<u8>>,
}

enum Operation {
    Write(u64, Vec<u8>),
    Flush,
}

impl StagedDevice {
    /// Holds back the changes to `device` until they are released.
    pub fn new(device: Box<dyn BlockDevice>) -> Self {
        Self::with_log(device, Some(Vec::new()))
    }

    /// Keeps the changes to `device` in memory for ever.
    pub fn overlay(device: Box<dyn BlockDevice>) -> Self {
        Self::with_log(device, None)
    }

    fn with_log(device: Box<dyn BlockDevice>, log: Option<Vec<Operation>>) -> Self {
        Self {
            sector_size: device.sector_size(),
            sector_count: device.sector_count(),
            // An overlay does not write to what is below it.
            read_only: device.is_read_only() && log.is_some(),
            overlay: log.is_none(),
            path: device.path().map(Into::into),
            shared: Arc::new(Mutex::new(Shared {
                device,
                staged: Some(Staged {
                    log,
                    sectors: BTreeMap::new(),
                }),
            })),
        }
    }

    /// Whether the changes are kept in memory for ever.
    pub fn is_overlay(&self) -> bool {
        self.overlay
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the changes that were held back, in their order, and from now on each at once. If that fails, the device
    /// below is as after a crash at that point, and nothing more is written to it. An overlay has nothing to release.
    pub fn release(&self) -> io::Result<()> {
        let mut shared = self.shared();
        let Shared { device, staged } = &mut *shared;
        let Some(log) = staged.as_mut().and_then(|staged| staged.log.take()) else {
            return Ok(());
        };
        for operation in log {
            match operation {
                Operation::Write(offset, bytes) => device.write_at(offset, &bytes)?,
                Operation::Flush => device.flush()?,
            }
        }
        *staged = None;
        Ok(())
    }
}

impl BlockDevice for StagedDevice {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn sector_count(&self) -> u64 {
        self.sector_count
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let size = u64::from(self.sector_size);
        let mut shared = self.shared();
        shared.device.read_at(offset, buf)?;
        if let Some(staged) = &shared.staged {
            let first = offset / size;
            let count = buf.len() as u64 / size;
            for (sector, bytes) in staged.sectors.range(first..first + count) {
                let at = ((sector - first) * size) as usize;
                buf[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let size = self.sector_size as usize;
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.sector_count * size as u64) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes at {offset} are outside the disk", buf.len()),
            ));
        }
        let mut shared = self.shared();
        let Shared { device, staged } = &mut *shared;
        let Some(staged) = staged else {
            return device.write_at(offset, buf);
        };
        for (sector, bytes) in (offset / size as u64..).zip(buf.chunks(size)) {
            staged.sectors.insert(sector, bytes.to_vec());
        }
        if let Some(log) = &mut staged.log {
            log.push(Operation::Write(offset, buf.to_vec()));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut shared = self.shared();
        let Shared { device, staged } = &mut *shared;
        match staged {
            Some(staged) => {
                if let Some(log) = &mut staged.log {
                    log.push(Operation::Flush);
                }
                Ok(())
            }
            None => device.flush(),
        }
    }

    fn allocate(&mut self) -> io::Result<()> {
        match self.overlay {
            true => Ok(()),
            false => self.shared().device.allocate(),
        }
    }

    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let size = u64::from(self.sector_size);
        let mut shared = self.shared();
        let below = shared.device.next_data(offset)?;
        let staged = shared.staged.as_ref().and_then(|staged| {
            let (sector, _) = staged.sectors.range(offset / size..).next()?;
            Some((sector * size).max(offset))
        });
        Ok(below.into_iter().chain(staged).min())
    }

    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDevice;
    use crate::OpenOptions;
    use crate::Protection;
    use crate::Vmgs;
    use vmgs_format::FileId;

    #[test]
    fn changes_are_seen_at_once_and_made_when_released() {
        let disk = MemoryDevice::new(512, 64 * 4096);
        let staged = StagedDevice::new(Box::new(disk.clone()));
        let mut store = Vmgs::format(Box::new(staged.clone()), OpenOptions::default()).unwrap();
        store
            .write(FileId(1), Protection::Plain, &[7; 9000])
            .unwrap();
        let mut sector = [0; 1024];
        staged.clone().read_at(0, &mut sector).unwrap();
        assert!(sector.starts_with(b"GUESTRTS") && sector[512..].starts_with(b"GUESTRTS"));
        assert_eq!(store.read(FileId(1)).unwrap(), [7; 9000]);
        assert!(disk.with(|bytes| bytes.iter().all(|byte| *byte == 0)));

        staged.release().unwrap();
        let open = || Vmgs::open(Box::new(disk.clone()), OpenOptions::default()).unwrap();
        assert_eq!(open().read(FileId(1)).unwrap(), [7; 9000]);
        store.write(FileId(1), Protection::Plain, b"later").unwrap();
        assert_eq!(open().read(FileId(1)).unwrap(), b"later");
        staged.release().unwrap();
        assert_eq!(open().read(FileId(1)).unwrap(), b"later");
    }

    #[test]
    fn an_overlay_never_writes() {
        let disk = MemoryDevice::new(4096, 64 * 4096);
        let overlay = StagedDevice::overlay(Box::new(disk.clone()));
        let mut store = Vmgs::format(Box::new(overlay.clone()), OpenOptions::default()).unwrap();
        store.write(FileId(1), Protection::Plain, b"kept").unwrap();
        overlay.release().unwrap();
        store.write(FileId(1), Protection::Plain, b"more").unwrap();
        assert_eq!(store.read(FileId(1)).unwrap(), b"more");
        assert!(disk.with(|bytes| bytes.iter().all(|byte| *byte == 0)));
    }

    #[test]
    fn an_overlay_can_be_written_where_the_file_cannot() {
        use crate::Container;
        use crate::FileDevice;
        use crate::StoreAccess;
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 * 4096).unwrap();
        let open = |access| -> Box<dyn BlockDevice> {
            let raw = Container::Raw { sector_size: 512 };
            Box::new(FileDevice::open(file.path(), raw, access).unwrap())
        };
        let blocks = || file.as_file().metadata().unwrap().blocks();
        let mut overlay = StagedDevice::overlay(open(StoreAccess::ReadOnly));
        assert!(overlay.is_overlay() && !overlay.is_read_only());
        assert_eq!(BlockDevice::path(&overlay), Some(file.path()));
        overlay.allocate().unwrap();
        assert_eq!(blocks(), 0);
        drop(overlay);
        assert!(StagedDevice::new(open(StoreAccess::ReadOnly)).is_read_only());
        let mut staged = StagedDevice::new(open(StoreAccess::ReadWrite));
        assert!(!staged.is_overlay() && !staged.is_read_only());
        staged.allocate().unwrap();
        assert_eq!(blocks(), 64 * 8);
    }

    #[test]
    fn what_is_outside_the_disk_is_refused() {
        let mut staged = StagedDevice::new(Box::new(MemoryDevice::new(512, 8192)));
        for offset in [8192, 7680, u64::MAX - 511] {
            let error = staged.write_at(offset, &[0; 1024]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        staged.write_at(7168, &[0; 1024]).unwrap();
        staged.release().unwrap();
    }

    #[cfg(feature = "test_support")]
    #[test]
    fn the_order_of_writes_and_flushes_is_kept() {
        use crate::testing::RecordingDevice;
        let change = |device: Box<dyn BlockDevice>| {
            let mut store = Vmgs::format(device, OpenOptions::default()).unwrap();
            store
                .write(FileId(1), Protection::Plain, &[7; 9000])
                .unwrap();
        };
        let [direct, held] = [(); 2].map(|()| RecordingDevice::new(512, vec![0; 64 * 4096]));
        change(Box::new(direct.clone()));
        let staged = StagedDevice::new(Box::new(held.clone()));
        change(Box::new(staged.clone()));
        assert_eq!(held.operations(), []);
        staged.release().unwrap();
        assert_eq!(held.operations(), direct.operations());
    }
}
