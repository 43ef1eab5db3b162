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
pub enum DiskAccess {
    /// It can be read and written.
    #[default]
    #[n(0)]
    ReadWrite,
    /// It can only be read.
    #[n(1)]
    ReadOnly,
}

/// What happens to the space of sectors that are overwritten with zeroes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Space {
    /// It stays allocated.
    Keep,
    /// It may be released.
    Release,
}

/// A range of a disk, in bytes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The offset of the first byte.
    pub offset: u64,
    /// The number of bytes.
    pub len: u64,
}

impl Extent {
    fn take_front(&mut self, len: u64) -> Self {
        let len = len.min(self.len);
        let offset = self.offset;
        self.offset = offset.saturating_add(len);
        self.len -= len;
        Self { offset, len }
    }
}

/// The properties of a disk. They do not change while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// The name of the disk in messages, such as its path.
    pub name: String,
    /// The size in sectors of 512 bytes.
    pub sectors: u64,
    /// The unit that the guest reads and writes in, in bytes: 512 or 4096.
    pub logical_block: u32,
    /// The size of the blocks that can be written without a read-modify-write cycle, in bytes: a power of two, at least
    /// `logical_block`.
    pub physical_block: u32,
    /// Whether it can be written.
    pub access: DiskAccess,
    /// The granularity in which discarded space is released, in bytes; none if the disk does not support discards.
    pub discard_granularity: Option<u32>,
    /// A unique ID stored on the disk.
    pub id: Option<[u8; 16]>,
}

/// A disk cannot have blocks of that size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockSizeError {
    /// Guests support only two sizes.
    #[error("a disk has sectors of 512 or 4096 bytes, not {block}")]
    Unsupported {
        /// The size asked for, in bytes.
        block: u32,
    },
    /// The disk is not a multiple of the size.
    #[error("a disk of {size} bytes does not have whole sectors of {block} bytes")]
    Partial {
        /// The size of the disk, in bytes.
        size: u64,
        /// The size of a block, in bytes.
        block: u32,
    },
}

impl DiskInfo {
    /// Makes `block` bytes, 512 or 4096, the logical block size.
    pub fn set_logical_block(&mut self, block: u32) -> Result<(), BlockSizeError> {
        if !matches!(block, 512 | 4096) {
            return Err(BlockSizeError::Unsupported { block });
        }
        let size = self.size();
        if !size.is_multiple_of(block.into()) {
            return Err(BlockSizeError::Partial { size, block });
        }
        self.logical_block = block;
        self.physical_block = self.physical_block.max(block);
        self.discard_granularity = self.discard_granularity.map(|bytes| bytes.max(block));
        Ok(())
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// Checks that the disk supports `operation` and has its sectors. Queues call this for every operation.
    pub fn check(&self, operation: &DiskOperation) -> Result<(), DiskError> {
        let extent = operation.extent();
        let Extent { offset, len } = extent;
        let block = u64::from(self.logical_block);
        if offset % block != 0 || len % block != 0 {
            return Err(DiskError::Unaligned { offset, len, block });
        }
        let size = self.size();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(DiskError::OutOfRange { offset, len, size });
        }
        match operation {
            DiskOperation::Read { .. } | DiskOperation::Flush => Ok(()),
            _ if self.access == DiskAccess::ReadOnly => Err(DiskError::ReadOnly),
            DiskOperation::Discard { .. } if self.discard_granularity.is_none() => {
                Err(DiskError::CannotDiscard)
            }
            _ => Ok(()),
        }
    }
}

/// An operation on a disk. Offsets and lengths are multiples of [`DiskInfo::logical_block`].
#[derive(Debug)]
pub enum DiskOperation {
    /// Reads the bytes starting at `offset` into `buffers`.
    Read {
        /// The first byte on the disk.
        offset: u64,
        /// Where the bytes go.
        buffers: Buffers,
    },
    /// Writes `buffers` to the bytes starting at `offset`.
    Write {
        /// The first byte on the disk.
        offset: u64,
        /// Where the bytes come from.
        buffers: Buffers,
    },
    /// Makes every operation that completed before this one was submitted survive a power loss.
    Flush,
    /// Discards the content of an extent: what is read from it afterwards is up to the disk.
    Discard {
        /// What to discard.
        extent: Extent,
    },
    /// Overwrites an extent with zeroes.
    WriteZeroes {
        /// What to overwrite.
        extent: Extent,
        /// What happens to its space.
        space: Space,
    },
}

impl DiskOperation {
    /// The affected part of the disk; empty for a flush.
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

    /// Removes and returns the part of the operation that affects the first `len` bytes, or all. `len` is a multiple of
    /// the logical block size. A flush has no parts.
    #[must_use]
    pub fn take_front(&mut self, len: u64) -> Self {
        match self {
            Self::Read { offset, buffers } => Self::Read {
                offset: std::mem::replace(offset, offset.saturating_add(len)),
                buffers: buffers.take_front(len),
            },
            Self::Write { offset, buffers } => Self::Write {
                offset: std::mem::replace(offset, offset.saturating_add(len)),
                buffers: buffers.take_front(len),
            },
            Self::Flush => Self::Flush,
            Self::Discard { extent } => Self::Discard {
                extent: extent.take_front(len),
            },
            Self::WriteZeroes { extent, space } => Self::WriteZeroes {
                extent: extent.take_front(len),
                space: *space,
            },
        }
    }

    /// The name of the operation in messages.
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
    /// The extent does not consist of whole blocks.
    #[error("{len} bytes at {offset:#x} are not whole blocks of {block} bytes")]
    Unaligned {
        /// The offset of the first byte.
        offset: u64,
        /// The number of bytes.
        len: u64,
        /// The logical block size of the disk in bytes.
        block: u64,
    },
    /// The extent goes past the end of the disk.
    #[error("{len} bytes at {offset:#x} are not within the disk's {size} bytes")]
    OutOfRange {
        /// The offset of the first byte.
        offset: u64,
        /// The number of bytes.
        len: u64,
        /// The size of the disk in bytes.
        size: u64,
    },
    /// A change of a read-only disk was requested.
    #[error("the disk is read-only")]
    ReadOnly,
    /// A discard was requested of a disk that does not support it.
    #[error("the disk does not support discards")]
    CannotDiscard,
    /// After the write, the disk would be found to have another format than it has.
    #[error("the write would make the disk look like a {becomes} file at the next start")]
    ChangesFormat {
        /// The name of that format.
        becomes: &'static str,
    },
    /// The file has become shorter than the disk.
    #[error("failed to {operation} at {offset:#x}: the file ends there")]
    Truncated {
        /// What was attempted.
        operation: &'static str,
        /// The end of the file, in bytes.
        offset: u64,
    },
    /// An earlier flush failed, and data written before it may be lost. No later flush can succeed.
    #[error("an earlier flush failed; what was written before it may be lost")]
    FlushFailed,
    /// The host reported an error.
    #[error("failed to {operation} at {offset:#x}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The offset in bytes.
        offset: u64,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
}

/// The completion of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The token that the operation was submitted with.
    pub token: u64,
    /// The result. After an error the sectors of a write hold any mix of old and new data.
    pub result: Result<(), DiskError>,
}

/// A disk.
pub trait Disk: Send + Sync {
    /// Its properties.
    fn info(&self) -> &DiskInfo;

    /// Makes everything that completed in any queue survive a power loss, and waits for that.
    fn flush(&self) -> Result<(), DiskError>;

    /// What was created to open the disk stays. Otherwise it is removed when the disk is dropped.
    fn keep(&self) {}

    /// Opens a queue for the calling thread, sized for about `depth` operations in flight.
    ///
    /// [`DiskQueue::wait`] also returns when one of `events` is signalled: eventfds that nobody else reads.
    fn open_queue(
        self: Arc<Self>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>>;
}

/// A queue of operations of one thread.
///
/// Operations in flight are done in any order. Dropping a queue waits for the operations that access memory.
pub trait DiskQueue {
    /// Submits an operation. It may be delayed until the next `poll` or `wait`; one of those returns its completion with
    /// `token`.
    fn submit(&mut self, token: u64, operation: DiskOperation);

    /// Starts submitted operations, and appends completions to `completions`: also with an error, which means that the
    /// queue cannot be used any more.
    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()>;

    /// As `poll`, but first waits until an operation has completed or an event was signalled. May return earlier.
    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()>;
}
