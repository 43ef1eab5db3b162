//! A disk that keeps changes in memory.

use crate::Completion;
use crate::Disk;
use crate::DiskAccess;
use crate::DiskError;
use crate::DiskInfo;
use crate::DiskOperation;
use crate::DiskQueue;
use crate::memory_disk::out_of_memory;
use crate::sparse::CHUNK;
use crate::sparse::SparseSectors;
use slab::Slab;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A disk with the content of another one, the lower disk, that keeps changes in memory until the process ends.
///
/// The lower disk is only read, and must not change meanwhile.
pub struct OverlayDisk {
    info: DiskInfo,
    lower: Arc<dyn Disk>,
    sectors: SparseSectors,
}

impl OverlayDisk {
    /// Creates a writable disk over `lower`.
    pub fn new(lower: Arc<dyn Disk>) -> Self {
        let lower_info = lower.info();
        Self {
            info: DiskInfo {
                name: format!("memdiff:{}", lower_info.name),
                access: DiskAccess::ReadWrite,
                discard_granularity: Some(CHUNK as u32),
                ..lower_info.clone()
            },
            lower,
            sectors: SparseSectors::new(),
        }
    }
}

impl Disk for OverlayDisk {
    fn info(&self) -> &DiskInfo {
        &self.info
    }

    fn flush(&self) -> Result<(), DiskError> {
        // Nothing of it survives anyway.
        Ok(())
    }

    fn open_queue(
        self: Arc<Self>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>> {
        let lower = self.lower.clone().open_queue(depth, events)?;
        Ok(Box::new(OverlayQueue {
            disk: self,
            lower,
            reads: Slab::new(),
            completed: Vec::new(),
            lower_completed: Vec::new(),
        }))
    }
}

/// A read that waits for reads of the lower disk.
struct PendingRead {
    token: u64,
    parts: usize,
    error: Option<DiskError>,
}

struct OverlayQueue {
    disk: Arc<OverlayDisk>,
    lower: Box<dyn DiskQueue>,
    /// By the token of their reads of the lower disk.
    reads: Slab<PendingRead>,
    completed: Vec<Completion>,
    lower_completed: Vec<Completion>,
}

impl OverlayQueue {
    /// Performs what does not need the lower disk.
    fn run(&self, operation: &DiskOperation) -> Result<(), DiskError> {
        let sectors = &self.disk.sectors;
        match operation {
            DiskOperation::Read { .. } | DiskOperation::Flush => Ok(()),
            DiskOperation::Write { offset, buffers } => sectors.write(*offset, buffers),
            // Discarded sectors become zero, so that the content of the lower disk does not reappear.
            DiskOperation::Discard { extent } | DiskOperation::WriteZeroes { extent, .. } => {
                sectors.zero(*extent)
            }
        }
        .map_err(|e| out_of_memory(operation, e))
    }

    /// Handles the completions of the lower disk.
    fn collect(&mut self) {
        for part in self.lower_completed.drain(..) {
            let key = part.token as usize;
            let Some(read) = self.reads.get_mut(key) else {
                continue;
            };
            read.parts -= 1;
            if let Err(e) = part.result {
                read.error = Some(e);
            }
            if read.parts == 0 {
                let read = self.reads.remove(key);
                self.completed.push(Completion {
                    token: read.token,
                    result: read.error.map_or(Ok(()), Err),
                });
            }
        }
    }
}

impl DiskQueue for OverlayQueue {
    fn submit(&mut self, token: u64, operation: DiskOperation) {
        if let Err(e) = self.disk.info.check(&operation) {
            let result = Err(e);
            self.completed.push(Completion { token, result });
            return;
        }
        if let DiskOperation::Read { offset, buffers } = &operation {
            let entry = self.reads.vacant_entry();
            let mut parts = 0;
            self.disk.sectors.read(*offset, buffers, |absent| {
                parts += 1;
                let part = DiskOperation::Read {
                    offset: offset + absent.offset,
                    buffers: buffers.part(absent.offset, absent.len),
                };
                self.lower.submit(entry.key() as u64, part);
            });
            if parts != 0 {
                entry.insert(PendingRead {
                    token,
                    parts,
                    error: None,
                });
                return;
            }
        }
        let result = self.run(&operation);
        self.completed.push(Completion { token, result });
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let result = self.lower.poll(&mut self.lower_completed);
        self.collect();
        completions.append(&mut self.completed);
        result
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        if !self.completed.is_empty() {
            return self.poll(completions);
        }
        let result = self.lower.wait(&mut self.lower_completed);
        self.collect();
        completions.append(&mut self.completed);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Faults;
    use crate::FaultyDisk;
    use crate::MemoryDisk;
    use crate::exercise;
    use crate::exercise::Client;
    use proptest::prelude::*;

    const SIZE: u64 = 4 * CHUNK;

    fn lower() -> (Arc<MemoryDisk>, Vec<u8>) {
        let content: Vec<u8> = (0..SIZE).map(|i| (i / 512 * 7 + i) as u8).collect();
        let disk = Arc::new(MemoryDisk::new(SIZE, DiskAccess::ReadWrite).unwrap());
        Client::new(disk.clone()).write(0, &content).unwrap();
        (disk, content)
    }

    #[test]
    fn a_failing_part_fails_the_read_once() {
        let (lower, content) = lower();
        let faults = Faults::default();
        let faulty = Arc::new(FaultyDisk::new(lower, faults.clone()));
        let disk = Arc::new(OverlayDisk::new(faulty));
        let mut client = Client::new(disk);
        // Parts: lower disk, overlay, lower disk.
        client.write(512, &[1; 512]).unwrap();
        faults.fail_next(1, libc::EIO);
        assert!(matches!(client.read(0, 1536), Err(DiskError::Io { .. })));
        let read = client.read(0, 1536).unwrap();
        assert_eq!(read[..512], content[..512]);
        assert_eq!(read[512..1024], [1; 512]);
        assert_eq!(read[1024..], content[1024..1536]);
    }

    proptest! {
        #[test]
        fn behaves_as_the_model_and_does_not_change_the_lower_disk(script in exercise::script(SIZE)) {
            let (lower, content) = lower();
            let disk = OverlayDisk::new(lower.clone());
            exercise::compare(Arc::new(disk), content.clone(), &script);
            prop_assert!(Client::new(lower).read(0, SIZE).unwrap() == content);
        }
    }
}
