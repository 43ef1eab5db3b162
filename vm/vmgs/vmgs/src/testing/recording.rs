//! A device that records operations, injects faults, and enumerates the possible contents of its medium
//! after a crash at any time.

use crate::device::BlockDevice;
use crate::device::MemoryDevice;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// An operation on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A write of bytes at an offset.
    Write(u64, Vec<u8>),
    /// A flush of the cache.
    Flush,
    /// A flush that failed. The writes before it are lost: they stay in the cache, and no flush writes them.
    LostFlush,
}

/// The effect of a crash on writes that were not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultModel {
    /// None: the medium has every write before the crash.
    WriteThrough,
    /// Any subset of them is lost.
    LoseUnflushed,
    /// Any subset of them is lost, and one more is torn at any byte.
    Torn,
}

impl FaultModel {
    /// All models.
    pub const ALL: [FaultModel; 3] = [
        FaultModel::WriteThrough,
        FaultModel::LoseUnflushed,
        FaultModel::Torn,
    ];
}

/// A fault to inject, at an operation counted from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The write or flush after this many others fails without effect.
    Fails(usize),
    /// The write or flush after this many others takes effect, but reports a failure.
    FailsAfterEffect(usize),
    /// The flush after this many other writes and flushes fails as a flush of Linux's page cache does: what was written
    /// since the last flush is read back, but is never written to the medium.
    LosesUnflushed(usize),
}

#[derive(Debug, Default)]
struct Log {
    base: Vec<u8>,
    operations: Vec<Operation>,
    fault: Option<Fault>,
}

/// A disk in memory that records writes and flushes. A clone is another handle to the same disk.
#[derive(Debug, Clone)]
pub struct RecordingDevice {
    memory: MemoryDevice,
    log: Arc<Mutex<Log>>,
}

/// Maximum number of unflushed writes of which all subsets are enumerated. Of more writes, the subsets that
/// keep or lose one are.
const MAX_SUBSET_WRITES: usize = 7;
/// The same for the writes beside a torn write.
const MAX_TORN_SUBSET_WRITES: usize = 4;

impl RecordingDevice {
    /// A disk with this content.
    pub fn new(sector_size: u32, content: Vec<u8>) -> Self {
        Self {
            log: Arc::new(Mutex::new(Log {
                base: content.clone(),
                ..Log::default()
            })),
            memory: MemoryDevice::with_bytes(sector_size, content),
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recorded operations.
    pub fn operations(&self) -> Vec<Operation> {
        self.log().operations.clone()
    }

    /// Number of recorded writes and number of recorded flushes.
    pub fn counts(&self) -> (usize, usize) {
        let log = self.log();
        let count =
            |wanted: fn(&Operation) -> bool| log.operations.iter().filter(|op| wanted(op)).count();
        (
            count(|op| matches!(op, Operation::Write(..))),
            count(|op| *op == Operation::Flush),
        )
    }

    /// Clears the recording. All writes so far count as flushed.
    pub fn restart(&self) {
        let mut log = self.log();
        log.base = self.memory.to_vec();
        log.operations.clear();
    }

    /// Sets or clears the fault to inject.
    pub fn inject(&self, fault: Option<Fault>) {
        self.log().fault = fault;
    }

    /// The content, with all writes.
    pub fn content(&self) -> Vec<u8> {
        self.memory.to_vec()
    }

    /// Calls `visit` with `cut`, a description, and the content, for each content that the medium can have
    /// after a crash that follows the first `cut` operations.
    pub fn for_each_crash(&self, model: FaultModel, mut visit: impl FnMut(usize, &str, Vec<u8>)) {
        let log = self.log();
        let mut durable = log.base.clone();
        let mut pending: Vec<(u64, &[u8])> = Vec::new();
        for cut in 0..=log.operations.len() {
            crash_contents(model, &durable, &pending, &mut |what, content| {
                visit(cut, what, content);
            });
            match log.operations.get(cut) {
                Some(Operation::Write(offset, bytes)) => pending.push((*offset, bytes)),
                Some(Operation::Flush) => {
                    for (offset, bytes) in pending.drain(..) {
                        apply(&mut durable, offset, bytes);
                    }
                }
                Some(Operation::LostFlush) => pending.clear(),
                None => {}
            }
        }
    }
}

fn apply(content: &mut [u8], offset: u64, bytes: &[u8]) {
    let offset = offset as usize;
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn with_writes(durable: &[u8], pending: &[(u64, &[u8])], kept: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut content = durable.to_vec();
    for (i, (offset, bytes)) in pending.iter().enumerate() {
        if kept(i) {
            apply(&mut content, *offset, bytes);
        }
    }
    content
}

/// The enumerated subsets of `count` writes. An element is true if the write is kept.
fn subsets(count: usize, max: usize) -> Vec<Vec<bool>> {
    if count <= max {
        return (0..1usize << count)
            .map(|bits| (0..count).map(|i| bits >> i & 1 != 0).collect())
            .collect();
    }
    let mut subsets = vec![vec![true; count], vec![false; count]];
    for one in 0..count {
        subsets.push((0..count).map(|i| i == one).collect());
        subsets.push((0..count).map(|i| i != one).collect());
        subsets.push((0..count).map(|i| i < one).collect());
    }
    subsets
}

fn crash_contents(
    model: FaultModel,
    durable: &[u8],
    pending: &[(u64, &[u8])],
    visit: &mut dyn FnMut(&str, Vec<u8>),
) {
    match model {
        FaultModel::WriteThrough => visit("all writes", with_writes(durable, pending, |_| true)),
        FaultModel::LoseUnflushed => {
            for kept in subsets(pending.len(), MAX_SUBSET_WRITES) {
                visit(
                    &format!("unflushed writes kept: {kept:?}"),
                    with_writes(durable, pending, |i| kept[i]),
                );
            }
        }
        FaultModel::Torn => {
            for (torn, (offset, bytes)) in pending.iter().enumerate() {
                let subsets = subsets(pending.len(), MAX_TORN_SUBSET_WRITES);
                for kept in subsets.iter().filter(|kept| !kept[torn]) {
                    let content = with_writes(durable, pending, |i| kept[i]);
                    for (what, start, end) in tears(bytes.len()) {
                        let mut content = content.clone();
                        apply(&mut content, offset + start as u64, &bytes[start..end]);
                        visit(
                            &format!("kept {kept:?}, write {torn} torn: {what}"),
                            content,
                        );
                    }
                }
            }
        }
    }
}

/// The remaining parts of a torn write of `len` bytes that are enumerated: beginnings and ends, cut between
/// sectors and inside the first and the last sector.
fn tears(len: usize) -> Vec<(String, usize, usize)> {
    let mut cuts: Vec<usize> = [1, 8, 12, 16, 20, 28, 32, 36, 100, 167, 168, 256, 511]
        .into_iter()
        .flat_map(|cut| [cut, len.saturating_sub(cut)])
        .collect();
    // All sector boundaries of short writes, some of long ones.
    cuts.extend((512..len).step_by(512.max(len / 16 / 512 * 512)));
    cuts.retain(|cut| (1..len).contains(cut));
    cuts.sort_unstable();
    cuts.dedup();
    cuts.into_iter()
        .flat_map(|cut| {
            [
                (format!("first {cut} bytes"), 0, cut),
                (format!("from byte {cut}"), cut, len),
            ]
        })
        .collect()
}

impl RecordingDevice {
    fn perform(&mut self, operation: &Operation) -> io::Result<()> {
        let mut log = self.log();
        let (fails, effect, lost) = match &mut log.fault {
            None => (false, true, false),
            Some(Fault::Fails(0)) => (true, false, false),
            Some(Fault::FailsAfterEffect(0)) => (true, true, false),
            Some(Fault::LosesUnflushed(0)) if *operation == Operation::Flush => (true, false, true),
            Some(Fault::LosesUnflushed(0)) => (false, true, false),
            Some(Fault::Fails(n) | Fault::FailsAfterEffect(n) | Fault::LosesUnflushed(n)) => {
                *n -= 1;
                (false, true, false)
            }
        };
        if fails {
            log.fault = None;
        }
        if effect {
            log.operations.push(operation.clone());
        }
        if lost {
            log.operations.push(Operation::LostFlush);
        }
        drop(log);
        if effect && let Operation::Write(offset, bytes) = operation {
            self.memory.write_at(*offset, bytes)?;
        }
        if fails {
            Err(io::Error::other("injected fault"))
        } else {
            Ok(())
        }
    }
}

impl BlockDevice for RecordingDevice {
    fn sector_size(&self) -> u32 {
        self.memory.sector_size()
    }

    fn sector_count(&self) -> u64 {
        self.memory.sector_count()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check_alignment(offset, buf.len())?;
        self.memory.read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_alignment(offset, buf.len())?;
        self.perform(&Operation::Write(offset, buf.to_vec()))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.perform(&Operation::Flush)
    }
}

impl RecordingDevice {
    fn check_alignment(&self, offset: u64, len: usize) -> io::Result<()> {
        let sector = u64::from(self.sector_size());
        if offset.is_multiple_of(sector) && (len as u64).is_multiple_of(sector) {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{len} bytes at {offset} are not whole sectors"),
            ))
        }
    }
}
