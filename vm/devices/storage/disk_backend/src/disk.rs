//! The contract of disks.

use crate::Buffers;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The unit of offsets and lengths on a disk, in bytes.
pub const SECTOR: u64 = 512;

/// Whether a disk can be written.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Access {
    /// Reads and writes.
    #[default]
    #[n(0)]
    ReadWrite,
    /// Reads only.
    #[n(1)]
    ReadOnly,
}

/// What becomes of the space of sectors that are overwritten with zeroes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Space {
    /// It stays allocated.
    Keep,
    /// It may go back to whoever provides it.
    Release,
}

/// A range of a disk, in bytes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub len: u64,
}

/// What a disk is. Does not change while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// What to call it in messages: a path, say.
    pub name: String,
    /// The size in sectors of 512 bytes.
    pub sectors: u64,
    /// The size of the blocks that can be written without reading first, in bytes: a power of two, at least 512.
    pub physical_block: u32,
    /// Whether it can be written.
    pub access: Access,
    /// The unit in which discarded space is released, in bytes; none if the disk cannot release any.
    pub discard_granularity: Option<u32>,
    /// An identity that the disk itself carries.
    pub id: Option<[u8; 16]>,
}

impl DiskInfo {
    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// Whether `operation` is one that the disk can be asked for. Queues check this for every operation.
    pub fn check(&self, operation: &Operation) -> Result<(), DiskError> {
        let extent = operation.extent();
        let Extent { offset, len } = extent;
        if offset % SECTOR != 0 || len % SECTOR != 0 {
            return Err(DiskError::Unaligned { offset, len });
        }
        let size = self.size();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(DiskError::OutOfRange { offset, len, size });
        }
        match operation {
            Operation::Read { .. } | Operation::Flush => Ok(()),
            _ if self.access == Access::ReadOnly => Err(DiskError::ReadOnly),
            Operation::Discard { .. } if self.discard_granularity.is_none() => {
                Err(DiskError::CannotDiscard)
            }
            _ => Ok(()),
        }
    }
}

/// Something to do on a disk. Offsets and lengths are multiples of [`SECTOR`].
#[derive(Debug)]
pub enum Operation {
    /// Fills `buffers` with the bytes from `offset` on.
    Read {
        /// The first byte on the disk.
        offset: u64,
        /// Where the bytes go.
        buffers: Buffers,
    },
    /// Writes `buffers` to `offset` and on.
    Write {
        /// The first byte on the disk.
        offset: u64,
        /// Where the bytes come from.
        buffers: Buffers,
    },
    /// Makes every operation that completed before this one was submitted survive a loss of power.
    Flush,
    /// Gives up the content of an extent: what is read from it afterwards is up to the disk.
    Discard {
        /// What to give up.
        extent: Extent,
    },
    /// Overwrites an extent with zeroes.
    WriteZeroes {
        /// What to overwrite.
        extent: Extent,
        /// What becomes of its space.
        space: Space,
    },
}

impl Operation {
    /// The part of the disk it is about; empty for a flush.
    pub fn extent(&self) -> Extent {
        match self {
            Self::Read { offset, buffers } | Self::Write { offset, buffers } => Extent {
                offset: *offset,
                len: buffers.len(),
            },
            Self::Flush => Extent { offset: 0, len: 0 },
            Self::Discard { extent } | Self::WriteZeroes { extent, .. } => *extent,
        }
    }

    /// What to call it in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Flush => "flush",
            Self::Discard { .. } => "discard",
            Self::WriteZeroes { .. } => "write zeroes",
        }
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The extent does not consist of sectors.
    #[error("{len} bytes at {offset:#x} are not whole sectors")]
    Unaligned {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// The extent goes past the end of the disk.
    #[error("{len} bytes at {offset:#x} are not within the disk's {size} bytes")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// The size of the disk in bytes.
        size: u64,
    },
    /// A disk that cannot be written was to be changed.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The disk said it cannot discard.
    #[error("the disk cannot discard")]
    CannotDiscard,
    /// What holds the disk's bytes has become shorter than the disk.
    #[error("failed to {operation} at {offset:#x}: the file ends there")]
    Truncated {
        /// What was attempted.
        operation: &'static str,
        /// Where it ended, in bytes.
        offset: u64,
    },
    /// What was written before may be lost, since an earlier flush failed; no later one can say otherwise.
    #[error("an earlier flush failed; what was written before it may be lost")]
    FlushFailed,
    /// The host failed to do it.
    #[error("failed to {operation} at {offset:#x}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// Where, in bytes.
        offset: u64,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// What the operation was submitted with.
    pub token: u64,
    /// How it went. After an error the sectors of a write hold any mix of old and new.
    pub result: Result<(), DiskError>,
}

/// A disk.
pub trait Disk: Send + Sync {
    /// What it is.
    fn info(&self) -> &DiskInfo;

    /// Opens a way to the disk for the calling thread, made for about `depth` operations at a time.
    ///
    /// [`DiskQueue::wait`] also returns when one of `events` is signalled: eventfds that nobody else reads.
    fn open_queue(
        self: Arc<Self>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>>;
}

/// One thread's way to a disk.
///
/// Operations that are in flight together are done in any order. Dropped, a queue first waits for the
/// operations that use memory directly.
pub trait DiskQueue {
    /// Takes on an operation. It may be held back until the next `poll` or `wait`, and ends in a completion with
    /// `token` from one of them.
    fn submit(&mut self, token: u64, operation: Operation);

    /// Starts what was submitted, and adds what has completed to `completions`.
    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()>;

    /// Like `poll`, but waits until something has completed or an event was signalled; sometimes for less.
    ///
    /// An error means that the queue is beyond use.
    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()>;
}
