//! Opens a specified disk.

use crate::DiskSource;
use crate::DiskSpec;
use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::MemoryDisk;
use disk_backend::MemoryDiskError;
use disk_backend::OverlayDisk;
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
        Ok(match &self.source {
            DiskSource::File(path) => disk_file::open(path, self.file_options(self.access))?,
            DiskSource::Memory { size } => {
                let disk = MemoryDisk::new(*size, self.access)?;
                Arc::new(match self.sector {
                    Some(sector) => disk.with_logical_block(sector)?,
                    None => disk,
                })
            }
            DiskSource::Overlay(path) => {
                let lower = disk_file::open(path, self.file_options(DiskAccess::ReadOnly))?;
                Arc::new(OverlayDisk::new(lower))
            }
        })
    }

    /// Checks that the disk can be opened, as far as this can be known without locking its file. Nothing is created.
    pub fn check(&self) -> Result<(), DiskOpenError> {
        match &self.source {
            DiskSource::File(path) => disk_file::check(path, self.file_options(self.access))?,
            DiskSource::Overlay(path) => {
                disk_file::check(path, self.file_options(DiskAccess::ReadOnly))?;
            }
            DiskSource::Memory { .. } => drop(self.open()?),
        }
        Ok(())
    }

    fn file_options(&self, access: DiskAccess) -> FileOptions {
        FileOptions {
            access,
            format: self.format,
            engine: self.engine,
            sector: self.sector,
            create: self.create,
            caching: self.caching,
        }
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
            ("mem:4K,sector=4096".into(), 8, DiskAccess::ReadWrite),
            (path.to_string(), 8, DiskAccess::ReadWrite),
            (format!("memdiff:{path}"), 8, DiskAccess::ReadWrite),
            (format!("file:{path};create=8K"), 8, DiskAccess::ReadWrite),
        ] {
            text.parse::<DiskSpec>().unwrap().check().unwrap();
            let disk = text.parse::<DiskSpec>().unwrap().open().unwrap();
            assert_eq!((disk.info().sectors, disk.info().access), (sectors, access));
        }
        for text in [
            "/missing/disk".to_owned(),
            "memdiff:/missing/disk".into(),
            "/missing/disk;create=1M".into(),
            format!("{path},sector=4096,format=qcow2"),
            "mem:512,sector=4096".into(),
        ] {
            let disk: DiskSpec = text.parse().unwrap();
            assert!(disk.check().is_err() && disk.open().is_err(), "{text}");
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
