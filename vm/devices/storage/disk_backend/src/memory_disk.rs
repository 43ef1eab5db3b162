//! A disk in memory.

use crate::BlockSizeError;
use crate::Completion;
use crate::Disk;
use crate::DiskAccess;
use crate::DiskError;
use crate::DiskInfo;
use crate::DiskOperation;
use crate::DiskQueue;
use crate::EventSet;
use crate::SECTOR;
use crate::sparse::CHUNK;
use crate::sparse::SparseSectors;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Why a memory disk cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryDiskError {
    /// The size is not a positive multiple of the sector size.
    #[error("a disk cannot have {size} bytes: the size must be a positive multiple of 512")]
    Size {
        /// The size asked for, in bytes.
        size: u64,
    },
    /// The disk cannot have such blocks.
    #[error(transparent)]
    Block(#[from] BlockSizeError),
}

/// A disk in the host's memory, zero at first, which ends with the process.
///
/// Memory is allocated in chunks of 64 KiB as they are written, and freed where whole chunks are discarded.
pub struct MemoryDisk {
    info: DiskInfo,
    sectors: SparseSectors,
}

impl MemoryDisk {
    /// Creates a disk of `size` bytes.
    pub fn new(size: u64, access: DiskAccess) -> Result<Self, MemoryDiskError> {
        if size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(MemoryDiskError::Size { size });
        }
        Ok(Self {
            info: DiskInfo {
                name: "mem".into(),
                sectors: size / SECTOR,
                logical_block: SECTOR as u32,
                physical_block: SECTOR as u32,
                access,
                discard_granularity: Some(CHUNK as u32),
                id: None,
            },
            sectors: SparseSectors::new(),
        })
    }

    /// Sets the unit that the guest reads and writes in, 512 or 4096 bytes.
    pub fn with_logical_block(mut self, block: u32) -> Result<Self, MemoryDiskError> {
        self.info.set_logical_block(block)?;
        Ok(self)
    }

    fn run(&self, operation: &DiskOperation) -> Result<(), DiskError> {
        self.info.check(operation)?;
        match operation {
            DiskOperation::Read { offset, buffers } => {
                self.sectors.read(*offset, buffers, |absent| {
                    buffers.clear(absent.offset, absent.len);
                });
                Ok(())
            }
            DiskOperation::Write { offset, buffers } => self
                .sectors
                .write(*offset, buffers)
                .map_err(|e| out_of_memory(operation, e)),
            DiskOperation::Flush => Ok(()),
            DiskOperation::Discard { extent } | DiskOperation::WriteZeroes { extent, .. } => {
                self.sectors.remove(*extent);
                Ok(())
            }
        }
    }
}

pub(crate) fn out_of_memory(
    operation: &DiskOperation,
    error: std::collections::TryReserveError,
) -> DiskError {
    DiskError::Io {
        operation: operation.name(),
        offset: operation.extent().offset,
        source: io::Error::new(io::ErrorKind::OutOfMemory, error),
    }
}

impl Disk for MemoryDisk {
    fn info(&self) -> &DiskInfo {
        &self.info
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn open_queue(
        self: Arc<Self>,
        _depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>> {
        Ok(Box::new(MemoryQueue {
            disk: self,
            events: EventSet::new(events)?,
            completed: Vec::new(),
        }))
    }
}

struct MemoryQueue {
    disk: Arc<MemoryDisk>,
    events: EventSet,
    completed: Vec<Completion>,
}

impl DiskQueue for MemoryQueue {
    fn submit(&mut self, token: u64, operation: DiskOperation) {
        let result = self.disk.run(&operation);
        self.completed.push(Completion { token, result });
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        completions.append(&mut self.completed);
        Ok(())
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        if self.completed.is_empty() {
            return self.events.wait();
        }
        self.poll(completions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Extent;
    use crate::exercise;
    use crate::exercise::Client;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_whole_sectors() {
        for size in [0, 1, 513] {
            assert!(matches!(
                MemoryDisk::new(size, DiskAccess::ReadWrite),
                Err(MemoryDiskError::Size { .. })
            ));
        }
        // Sparse: more than any host has.
        let disk = MemoryDisk::new(1 << 62, DiskAccess::ReadWrite).unwrap();
        assert_eq!(disk.info().sectors, 1 << 53);
        assert_eq!(disk.sectors.allocated(), 0);
    }

    #[test]
    fn memory_is_allocated_and_freed_in_chunks() {
        let disk = Arc::new(MemoryDisk::new(1 << 40, DiskAccess::ReadWrite).unwrap());
        let mut client = Client::new(disk.clone());
        client.write(1 << 39, &[7; 1024]).unwrap();
        assert_eq!(disk.sectors.allocated(), CHUNK);
        client.write((1 << 39) + CHUNK - 512, &[8; 1024]).unwrap();
        assert_eq!(disk.sectors.allocated(), 2 * CHUNK);
        assert_eq!(
            client.read(1 << 39, 2048).unwrap(),
            [vec![7; 1024], vec![0; 1024]].concat()
        );
        let extent = Extent {
            offset: 1 << 39,
            len: CHUNK,
        };
        client.run(DiskOperation::Discard { extent }).unwrap();
        assert_eq!(disk.sectors.allocated(), CHUNK);
    }

    #[test]
    fn invalid_operations_are_refused() {
        let read_only = Arc::new(MemoryDisk::new(4096, DiskAccess::ReadOnly).unwrap());
        let mut client = Client::new(read_only);
        assert!(matches!(
            client.write(0, &[0; 512]),
            Err(DiskError::ReadOnly)
        ));
        assert!(matches!(
            client.read(4096, 512),
            Err(DiskError::OutOfRange { .. })
        ));
        assert!(matches!(
            client.read(4096 - 512, 1024),
            Err(DiskError::OutOfRange { .. })
        ));
        assert!(matches!(
            client.read(u64::MAX - 511, 512),
            Err(DiskError::OutOfRange { .. })
        ));
        assert!(matches!(
            client.read(1, 512),
            Err(DiskError::Unaligned { .. })
        ));
        assert!(matches!(
            client.read(0, 511),
            Err(DiskError::Unaligned { .. })
        ));
        assert!(client.run(DiskOperation::Flush).is_ok());
    }

    proptest! {
        #[test]
        fn behaves_as_the_model(script in exercise::script(4 * CHUNK)) {
            let disk = MemoryDisk::new(4 * CHUNK, DiskAccess::ReadWrite).unwrap();
            exercise::compare(Arc::new(disk), vec![0; 4 * CHUNK as usize], &script);
        }
    }
}
