//! A disk that keeps changes in memory.

use crate::Buffers;
use crate::Completion;
use crate::Disk;
use crate::DiskAccess;
use crate::DiskError;
use crate::DiskInfo;
use crate::DiskOperation;
use crate::DiskQueue;
use crate::Extent;
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

    fn keep(&self) {
        self.lower.keep();
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

/// A read that waits for a read of the lower disk.
struct PendingRead {
    token: u64,
    offset: u64,
    buffers: Buffers,
}

struct OverlayQueue {
    disk: Arc<OverlayDisk>,
    lower: Box<dyn DiskQueue>,
    /// By the token of their reads of the lower disk. There is one for each, whatever of its range is in memory: a guest
    /// can make sectors alternate.
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
        for lower in self.lower_completed.drain(..) {
            let Some(read) = self.reads.try_remove(lower.token as usize) else {
                continue;
            };
            if lower.result.is_ok() {
                // Over what the lower disk has in their place.
                self.disk.sectors.read(read.offset, &read.buffers, |_| {});
            }
            self.completed.push(Completion {
                token: read.token,
                result: lower.result,
            });
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
        let operation = match operation {
            DiskOperation::Read { offset, buffers } => {
                let len = buffers.len();
                if let Some(absent) = self.disk.sectors.absent(Extent { offset, len }) {
                    let lower = DiskOperation::Read {
                        offset: absent.offset,
                        buffers: buffers.part(absent.offset - offset, absent.len),
                    };
                    let read = PendingRead {
                        token,
                        offset,
                        buffers,
                    };
                    self.lower.submit(self.reads.insert(read) as u64, lower);
                    return;
                }
                self.disk.sectors.read(offset, &buffers, |_| {});
                let result = Ok(());
                self.completed.push(Completion { token, result });
                return;
            }
            operation => operation,
        };
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
    use crate::Space;
    use crate::exercise;
    use crate::exercise::Client;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    const SIZE: u64 = 4 * CHUNK;

    fn lower() -> (Arc<MemoryDisk>, Vec<u8>) {
        let content: Vec<u8> = (0..SIZE).map(|i| (i / 512 * 7 + i) as u8).collect();
        let disk = Arc::new(MemoryDisk::new(SIZE, DiskAccess::ReadWrite).unwrap());
        Client::new(disk.clone()).write(0, &content).unwrap();
        (disk, content)
    }

    /// A disk that counts the operations on it.
    struct CountingDisk(Arc<MemoryDisk>, AtomicUsize);

    impl Disk for CountingDisk {
        fn info(&self) -> &DiskInfo {
            self.0.info()
        }

        fn flush(&self) -> Result<(), DiskError> {
            self.0.flush()
        }

        fn open_queue(
            self: Arc<Self>,
            depth: u16,
            events: &[BorrowedFd<'_>],
        ) -> io::Result<Box<dyn DiskQueue>> {
            struct Queue(Box<dyn DiskQueue>, Arc<CountingDisk>);
            impl DiskQueue for Queue {
                fn submit(&mut self, token: u64, operation: DiskOperation) {
                    self.1.1.fetch_add(1, Ordering::Relaxed);
                    self.0.submit(token, operation);
                }
                fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
                    self.0.poll(completions)
                }
                fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
                    self.0.wait(completions)
                }
            }
            let queue = self.0.clone().open_queue(depth, events)?;
            Ok(Box::new(Queue(queue, self)))
        }
    }

    #[test]
    fn a_read_of_alternating_sectors_is_one_read_of_the_lower_disk() {
        let (lower, mut content) = lower();
        let lower = Arc::new(CountingDisk(lower, AtomicUsize::new(0)));
        let mut client = Client::new(Arc::new(OverlayDisk::new(lower.clone())));
        for sector in (0..SIZE / 512).step_by(2) {
            let (offset, len, space) = (sector * 512, 512, Space::Keep);
            let extent = Extent { offset, len };
            client
                .run(DiskOperation::WriteZeroes { extent, space })
                .unwrap();
            content[offset as usize..][..512].fill(0);
        }
        assert!(client.read(0, SIZE).unwrap() == content);
        assert_eq!(lower.1.load(Ordering::Relaxed), 1);
        // What is in memory is not read from the lower disk at all.
        assert_eq!(client.read(0, 512).unwrap(), [0; 512]);
        assert_eq!(lower.1.load(Ordering::Relaxed), 1);
        assert!(client.read(512, 1024).unwrap() == content[512..1536]);
        assert_eq!(lower.1.load(Ordering::Relaxed), 2);
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
