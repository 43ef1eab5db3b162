//! What a hibernated guest relies on of a disk.

use chipset_device::MediumInfo;
use disk_backend::Buffers;
use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::DiskError;
use disk_backend::DiskOperation;
use std::io;
use std::sync::Arc;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

/// The most that is read at once, in bytes.
const BUFFER: usize = 64 << 10;

/// Why a disk cannot be examined.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The host does not give what reading needs.
    #[error("failed to prepare reading the disk {disk}")]
    Prepare {
        /// The disk.
        disk: String,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// It cannot be read.
    #[error("failed to read the start of the disk {disk}")]
    Read {
        /// The disk.
        disk: String,
        /// Why.
        #[source]
        source: DiskError,
    },
}

/// Examines `disk`, whose guest is told `serial`. Nothing may write it meanwhile. Blocks until it is read.
pub fn examine(disk: &Arc<dyn Disk>, serial: Option<String>) -> Result<MediumInfo, ExamineError> {
    let info = disk.info();
    Ok(MediumInfo {
        size: info.size(),
        sector: info.logical_block,
        serial: serial.unwrap_or_default(),
        read_only: info.access == DiskAccess::ReadOnly,
        content: content(disk)?,
    })
}

fn content(disk: &Arc<dyn Disk>) -> Result<Option<String>, ExamineError> {
    let name = || disk.info().name.clone();
    let prepare = |source| ExamineError::Prepare {
        disk: name(),
        source,
    };
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), BUFFER)])
        .map_err(|error| prepare(io::Error::other(error)))?;
    let memory = Arc::new(memory);
    let mut queue = disk.clone().open_queue(1, &[]).map_err(prepare)?;
    content_id::identify(disk.info().size(), |offset, bytes| {
        let part = [(GuestAddress(0), bytes.len() as u64)];
        let buffers =
            || Buffers::guest(&memory, part).map_err(|error| prepare(io::Error::other(error)));
        let operation = DiskOperation::Read {
            offset,
            buffers: buffers()?,
        };
        queue.submit(0, operation);
        let mut completions = Vec::new();
        while completions.is_empty() {
            queue.wait(&mut completions).map_err(prepare)?;
        }
        for completion in completions {
            let disk = name();
            let read = completion.result;
            read.map_err(|source| ExamineError::Read { disk, source })?;
        }
        buffers()?.copy_to(0, bytes);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DiskSpec;

    #[test]
    fn a_disk_is_what_is_on_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut image = vec![0; 128 << 10];
        image[4086..4096].copy_from_slice(b"SWAPSPACE2");
        image[1036..1052].fill(0x11);
        std::fs::write(file.path(), &image).unwrap();
        let path = file.path().display();
        let examined = |text: String| {
            let disk = text.parse::<DiskSpec>().unwrap().open().unwrap();
            examine(&disk, Some("abc".into())).unwrap()
        };
        let swap = "swap space 11111111-1111-1111-1111-111111111111";
        let expected = MediumInfo {
            size: 128 << 10,
            sector: 512,
            serial: "abc".into(),
            read_only: false,
            content: Some(swap.into()),
        };
        assert_eq!(examined(format!("file:{path}")), expected);
        assert_eq!(examined(format!("memdiff:file:{path}")), expected);
        let read_only = examined(format!("file:{path},ro"));
        assert!(read_only.read_only);
        let empty = examined("mem:512".into());
        assert_eq!((empty.size, empty.content), (512, None));
        assert!(std::fs::read(file.path()).unwrap() == image);
    }
}
