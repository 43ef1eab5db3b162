//! The disks of a machine.

use crate::Disk;
use crate::DiskAccess;
use crate::DiskError;
use parking_lot::Mutex;
use std::sync::Arc;

/// A disk that a device presents to the guest.
#[derive(Clone)]
pub struct AttachedDisk {
    /// The name of the device in the VM.
    pub device: String,
    /// The serial number that the guest sees, if it sees one.
    pub serial: Option<String>,
    /// The disk. [`DiskInfo`](crate::DiskInfo) has its size, sector size and access.
    pub disk: Arc<dyn Disk>,
}

/// All disks of a machine: a service that devices add their disks to. Cheap to clone.
#[derive(Clone, Default)]
pub struct AttachedDisks(Arc<Mutex<Vec<AttachedDisk>>>);

/// A disk cannot be made to survive a power loss.
#[derive(Debug, thiserror::Error)]
#[error("failed to flush {device}, the disk {disk}")]
pub struct FlushDisksError {
    /// The name of the device in the VM.
    pub device: String,
    /// The name of the disk, such as its path.
    pub disk: String,
    /// What went wrong.
    #[source]
    pub source: DiskError,
}

impl AttachedDisks {
    /// Adds a disk.
    pub fn add(&self, disk: AttachedDisk) {
        self.0.lock().push(disk);
    }

    /// The disks, in the order in which they were added.
    pub fn list(&self) -> Vec<AttachedDisk> {
        self.0.lock().clone()
    }

    /// What was created for the disks stays: their VM has started.
    pub fn keep(&self) {
        for attached in self.list() {
            attached.disk.keep();
        }
    }

    /// Makes everything that was written to the disks survive a power loss, and waits for that. Requests that a device
    /// has not completed are not included: stop the devices first.
    ///
    /// Fails with the first disk that cannot be flushed.
    pub fn flush(&self) -> Result<(), FlushDisksError> {
        for attached in self.list() {
            let info = attached.disk.info();
            if info.access == DiskAccess::ReadOnly {
                continue;
            }
            let flushed = attached.disk.flush();
            flushed.map_err(|source| FlushDisksError {
                device: attached.device,
                disk: info.name.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Faults;
    use crate::FaultyDisk;
    use crate::MemoryDisk;

    #[test]
    fn the_disk_that_cannot_be_flushed_is_named() {
        let disks = AttachedDisks::default();
        assert!(disks.flush().is_ok());
        let (faults, read_only) = (Faults::default(), Faults::default());
        for (device, access, faults) in [
            ("disk0", DiskAccess::ReadOnly, &read_only),
            ("disk1", DiskAccess::ReadWrite, &faults),
        ] {
            let memory = Arc::new(MemoryDisk::new(4096, access).unwrap());
            disks.add(AttachedDisk {
                device: device.into(),
                serial: None,
                disk: Arc::new(FaultyDisk::new(memory, faults.clone())),
            });
        }
        // A disk that cannot be written is not flushed.
        read_only.fail_next(1, libc::EIO);
        assert!(disks.flush().is_ok());
        faults.fail_next(1, libc::EIO);
        let error = disks.flush().unwrap_err();
        assert_eq!(error.to_string(), "failed to flush disk1, the disk mem");
        assert!(disks.flush().is_ok());
        let devices: Vec<_> = disks.list().into_iter().map(|disk| disk.device).collect();
        assert_eq!(devices, ["disk0", "disk1"]);
    }
}
