//! Opens a specified disk.

use crate::DiskSource;
use crate::DiskSpec;
use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::MemoryDisk;
use disk_backend::MemoryDiskError;
use disk_backend::OverlayDisk;
use disk_file::FileDisk;
use disk_file::FileDiskError;
use disk_file::FileOptions;
use std::sync::Arc;

/// Why a disk cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskOpenError {
    /// The file cannot be used as a disk.
    #[error(transparent)]
    File(#[from] FileDiskError),
    /// The memory disk cannot be created.
    #[error(transparent)]
    Memory(#[from] MemoryDiskError),
}

impl DiskSpec {
    /// Opens the disk. Its file is locked as long as it is open.
    pub fn open(&self) -> Result<Arc<dyn Disk>, DiskOpenError> {
        let options = |access| FileOptions {
            access,
            format: self.format,
            engine: self.engine,
            sector: self.sector,
        };
        Ok(match &self.source {
            DiskSource::File(path) => Arc::new(FileDisk::open(path, options(self.access))?),
            DiskSource::Memory { size } => {
                let disk = MemoryDisk::new(*size, self.access)?;
                Arc::new(match self.sector {
                    Some(sector) => disk.with_logical_block(sector)?,
                    None => disk,
                })
            }
            DiskSource::Overlay(path) => {
                let lower = FileDisk::open(path, options(DiskAccess::ReadOnly))?;
                Arc::new(OverlayDisk::new(Arc::new(lower)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_opened() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let path = file.path().display();
        for (text, sectors, access) in [
            (format!("file:{path}"), 8, DiskAccess::ReadWrite),
            (format!("file:{path},ro"), 8, DiskAccess::ReadOnly),
            (format!("memdiff:file:{path}"), 8, DiskAccess::ReadWrite),
            ("mem:1K".into(), 2, DiskAccess::ReadWrite),
            ("mem:1K,ro".into(), 2, DiskAccess::ReadOnly),
        ] {
            let disk = text.parse::<DiskSpec>().unwrap().open().unwrap();
            assert_eq!((disk.info().sectors, disk.info().access), (sectors, access));
        }
        let base: DiskSpec = format!("memdiff:file:{path}").parse().unwrap();
        let writer: DiskSpec = format!("file:{path}").parse().unwrap();
        // Any number of overlays may share a file, but not with a writer.
        let (a, b) = (base.open().unwrap(), base.open().unwrap());
        assert!(writer.open().is_err());
        drop((a, b));
        let _writer = writer.open().unwrap();
        assert!(base.open().is_err());
    }
}
