//! A simple client of disks, and the comparison of a disk with a model, for tests.
#![allow(clippy::unwrap_used, reason = "for tests")]

use crate::Buffers;
use crate::Completion;
use crate::Disk;
use crate::DiskError;
use crate::DiskOperation;
use crate::DiskQueue;
use crate::Extent;
use crate::SECTOR;
use crate::Space;
use proptest::prelude::*;
use std::sync::Arc;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

/// The memory that a client's operations use, in bytes.
const MEMORY: usize = 16 << 20;

/// Performs operations one at a time or in batches.
pub struct Client {
    memory: Arc<GuestMemoryMmap>,
    queue: Box<dyn DiskQueue>,
}

impl Client {
    /// Creates a client of `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        Self {
            memory: Arc::new(memory),
            queue: disk.open_queue(32, &[]).unwrap(),
        }
    }

    /// The memory starting at `at`, in pieces of different sizes.
    pub fn buffers(&self, at: u64, len: u64) -> Buffers {
        let mut pieces = Vec::new();
        let mut done = 0;
        for piece in [512, 4096, 24, 1000, 8192].iter().cycle() {
            let count = (len - done).min(*piece);
            pieces.push((GuestAddress(at + done), count));
            done += count;
            if done == len {
                break;
            }
        }
        Buffers::guest(&self.memory, pieces).unwrap()
    }

    /// Performs `operations` concurrently. Returns their results in the same order.
    pub fn batch(&mut self, operations: Vec<DiskOperation>) -> Vec<Result<(), DiskError>> {
        let mut results: Vec<_> = operations.iter().map(|_| None).collect();
        for (token, operation) in operations.into_iter().enumerate() {
            self.queue.submit(token as u64, operation);
        }
        let mut completions: Vec<Completion> = Vec::new();
        while results.iter().any(Option::is_none) {
            self.queue.wait(&mut completions).unwrap();
            for completion in completions.drain(..) {
                let before = results[completion.token as usize].replace(completion.result);
                assert!(before.is_none(), "completed twice");
            }
        }
        results.into_iter().map(Option::unwrap).collect()
    }

    /// Performs `operation`.
    pub fn run(&mut self, operation: DiskOperation) -> Result<(), DiskError> {
        self.batch(vec![operation]).remove(0)
    }

    /// Reads `len` bytes starting at `offset`.
    pub fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0xee; len as usize];
        self.buffers(0, len).copy_from(0, &bytes);
        let buffers = self.buffers(0, len);
        self.run(DiskOperation::Read { offset, buffers })?;
        self.buffers(0, len).copy_to(0, &mut bytes);
        Ok(bytes)
    }

    /// Writes `bytes` starting at `offset`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let buffers = self.buffers(0, bytes.len() as u64);
        buffers.copy_from(0, bytes);
        self.run(DiskOperation::Write { offset, buffers })
    }
}

/// A step of a comparison: what to do, and the first sector and number of sectors to do it to.
#[derive(Debug, Clone)]
pub struct Step {
    /// What to do.
    pub kind: StepKind,
    /// The first sector.
    pub sector: u64,
    /// The number of sectors.
    pub sectors: u64,
}

/// What a [`Step`] does.
#[derive(Debug, Copy, Clone)]
pub enum StepKind {
    /// Reads and compares.
    Read,
    /// Writes bytes derived from this.
    Write(u8),
    /// Flushes.
    Flush,
    /// Discards, and takes over the resulting content.
    Discard,
    /// Writes zeroes.
    Zero(Space),
}

impl StepKind {
    /// The kind selected by `choice`.
    pub fn from_byte(choice: u8) -> Self {
        match choice % 16 {
            0..6 => Self::Read,
            6..11 => Self::Write(choice),
            11 => Self::Flush,
            12 | 13 => Self::Discard,
            14 => Self::Zero(Space::Keep),
            _ => Self::Zero(Space::Release),
        }
    }
}

/// Scripts for a disk of `size` bytes. A few steps go past its end.
pub fn script(size: u64) -> impl Strategy<Value = Vec<Step>> {
    let sectors = size / SECTOR;
    let step = (any::<u8>(), 0..=sectors, prop_oneof![1..12u64, 1..400u64]).prop_map(
        move |(choice, sector, count)| Step {
            kind: StepKind::from_byte(choice),
            sector,
            // Mostly within the disk.
            sectors: match choice {
                0..16 => count,
                _ => count.min(sectors - sector).max(1),
            },
        },
    );
    prop::collection::vec(step, 1..40)
}

/// The data that a write of `seed` writes to the sectors starting at `sector`.
fn pattern(seed: u8, sector: u64, sectors: u64) -> Vec<u8> {
    let bytes = sector * SECTOR..(sector + sectors) * SECTOR;
    bytes
        .map(|i| (i as u8) ^ (i >> 9) as u8 ^ seed.wrapping_mul(59) | 1)
        .collect()
}

/// Performs `script` on `disk` and on a copy of its `content` in memory, and checks that they stay the same.
pub fn compare(disk: Arc<dyn Disk>, mut content: Vec<u8>, script: &[Step]) {
    let size = disk.info().size();
    assert_eq!(size, content.len() as u64);
    let mut client = Client::new(disk);
    for step in script {
        let sectors = step.sectors.min(MEMORY as u64 / SECTOR);
        let (offset, len) = (step.sector * SECTOR, sectors * SECTOR);
        let extent = Extent { offset, len };
        let inside = (offset + len <= size).then(|| offset as usize..(offset + len) as usize);
        let result = match step.kind {
            StepKind::Read => client.read(offset, len).map(|read| {
                assert!(read == content[inside.clone().unwrap()], "{step:?}");
            }),
            StepKind::Write(seed) => {
                let bytes = pattern(seed, step.sector, sectors);
                let result = client.write(offset, &bytes);
                if let Some(inside) = inside.clone() {
                    content[inside].copy_from_slice(&bytes);
                }
                result
            }
            StepKind::Flush => {
                client.run(DiskOperation::Flush).unwrap();
                continue;
            }
            StepKind::Discard => {
                let result = client.run(DiskOperation::Discard { extent });
                if let Some(inside) = inside.clone() {
                    // Any content is allowed, but it must not change.
                    let now = client.read(offset, len).unwrap();
                    content[inside].copy_from_slice(&now);
                }
                result
            }
            StepKind::Zero(space) => {
                if let Some(inside) = inside.clone() {
                    content[inside].fill(0);
                }
                client.run(DiskOperation::WriteZeroes { extent, space })
            }
        };
        assert_eq!(result.is_ok(), inside.is_some(), "{step:?}: {result:?}");
    }
    // Reads the whole disk with concurrent operations.
    let memory = client.memory.clone();
    let piece = 40 * SECTOR;
    let starts = || (0..size).step_by(piece as usize);
    let buffers = |at| Buffers::guest(&memory, [(GuestAddress(at), piece.min(size - at))]).unwrap();
    let reads = starts().map(|offset| DiskOperation::Read {
        offset,
        buffers: buffers(offset),
    });
    for result in client.batch(reads.collect()) {
        result.unwrap();
    }
    let mut read = vec![0; size as usize];
    client.buffers(0, size).copy_to(0, &mut read);
    assert!(read == content, "the final content differs");
}
