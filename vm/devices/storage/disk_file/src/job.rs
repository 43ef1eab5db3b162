//! A disk operation as a sequence of system calls, whoever makes them.

use crate::direct::Alignment;
use crate::direct::Bounce;
use disk_backend::Buffers;
use disk_backend::DiskError;
use disk_backend::DiskOperation;
use disk_backend::Extent;
use disk_backend::Space;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::io;
use std::ops::ControlFlow;

/// The most pieces of memory that the kernel takes in one call (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

/// A system call on the disk's file. The memory pieces are valid until the job is advanced or dropped.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Read {
        offset: u64,
        pieces: &'a [libc::iovec],
    },
    Write {
        offset: u64,
        pieces: &'a [libc::iovec],
    },
    Sync,
    Allocate {
        mode: FallocateFlags,
        extent: Extent,
    },
}

/// How zeroes are written; each way is tried when the one before is not supported.
#[derive(Debug)]
enum Zeroing {
    /// By releasing the space.
    Punch,
    /// By marking the space as unwritten.
    Mark,
    /// By writing these zeroes, again and again.
    Write(Buffers),
}

/// An operation in progress.
#[derive(Debug)]
pub(crate) struct Job {
    /// What is left to do.
    operation: DiskOperation,
    /// For [`DiskOperation::WriteZeroes`] only.
    zeroing: Zeroing,
    /// Memory for the calls, if they cannot use that of the operation.
    bounce: Option<Bounce>,
}

/// Whether the error says that the file system or device does not support the call.
fn unsupported(errno: Errno) -> bool {
    // Block devices refuse ranges that are not multiples of their own sectors with INVAL.
    matches!(
        errno,
        Errno::OPNOTSUPP | Errno::INVAL | Errno::NODEV | Errno::NOSYS
    )
}

fn limited(buffers: &Buffers) -> &[libc::iovec] {
    let pieces = buffers.iovecs();
    &pieces[..pieces.len().min(MAX_PIECES)]
}

impl Job {
    pub(crate) fn new(operation: DiskOperation) -> Self {
        let zeroing = match operation {
            DiskOperation::WriteZeroes {
                space: Space::Keep, ..
            } => Zeroing::Mark,
            _ => Zeroing::Punch,
        };
        Self {
            operation,
            zeroing,
            bounce: None,
        }
    }

    /// Has the calls use memory that is aligned.
    pub(crate) fn align(&mut self, alignment: Alignment) -> Result<(), DiskError> {
        let (DiskOperation::Read { buffers, .. } | DiskOperation::Write { buffers, .. }) =
            &self.operation
        else {
            return Ok(());
        };
        match Bounce::for_buffers(buffers, alignment) {
            Ok(bounce) => self.bounce = bounce,
            Err(source) => return Err(self.error(source)),
        }
        self.fill_bounce();
        Ok(())
    }

    fn fill_bounce(&self) {
        if let (DiskOperation::Write { buffers, .. }, Some(bounce)) =
            (&self.operation, &self.bounce)
        {
            bounce.fill(buffers);
        }
    }

    fn error(&self, source: io::Error) -> DiskError {
        DiskError::Io {
            operation: self.operation.name(),
            offset: self.operation.extent().offset,
            source,
        }
    }

    pub(crate) fn is_flush(&self) -> bool {
        matches!(self.operation, DiskOperation::Flush)
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_flush() && self.operation.extent().len == 0
    }

    /// The next system call.
    pub(crate) fn call(&self) -> Call<'_> {
        let allocate = |mode, extent: &Extent| Call::Allocate {
            mode: mode | FallocateFlags::KEEP_SIZE,
            extent: *extent,
        };
        match &self.operation {
            DiskOperation::Read { offset, buffers } => Call::Read {
                offset: *offset,
                pieces: limited(self.memory(buffers)),
            },
            DiskOperation::Write { offset, buffers } => Call::Write {
                offset: *offset,
                pieces: limited(self.memory(buffers)),
            },
            DiskOperation::Flush => Call::Sync,
            DiskOperation::Discard { extent } => allocate(FallocateFlags::PUNCH_HOLE, extent),
            DiskOperation::WriteZeroes { extent, .. } => match &self.zeroing {
                Zeroing::Punch => allocate(FallocateFlags::PUNCH_HOLE, extent),
                Zeroing::Mark => allocate(FallocateFlags::ZERO_RANGE, extent),
                Zeroing::Write(zeroes) => Call::Write {
                    offset: extent.offset,
                    pieces: limited(zeroes),
                },
            },
        }
    }

    /// The memory for calls that are for `buffers`.
    fn memory<'a>(&'a self, buffers: &'a Buffers) -> &'a Buffers {
        self.bounce.as_ref().map_or(buffers, Bounce::current)
    }

    /// Takes the result of the call. Continues if another call is needed.
    pub(crate) fn advance(
        &mut self,
        result: Result<usize, Errno>,
    ) -> ControlFlow<Result<(), DiskError>> {
        let count = match result {
            Ok(count) => count as u64,
            Err(Errno::INTR | Errno::AGAIN) => return ControlFlow::Continue(()),
            Err(errno) => return self.failed(errno),
        };
        if let (DiskOperation::Read { buffers, .. }, Some(bounce)) = (&self.operation, &self.bounce)
        {
            bounce.deliver(buffers, count);
        }
        // The kernel never moves more than it was asked to.
        let (offset, left) = match (&mut self.operation, &mut self.zeroing) {
            (
                DiskOperation::Read { offset, buffers } | DiskOperation::Write { offset, buffers },
                _,
            ) => {
                buffers.advance(count);
                (offset, buffers.len())
            }
            (DiskOperation::WriteZeroes { extent, .. }, Zeroing::Write(zeroes)) => {
                extent.len = extent.len.saturating_sub(count);
                *zeroes = Buffers::zeroes(extent.len);
                (&mut extent.offset, extent.len)
            }
            _ => return ControlFlow::Break(Ok(())),
        };
        if count == 0 {
            let offset = *offset;
            let operation = self.operation.name();
            return ControlFlow::Break(Err(DiskError::Truncated { operation, offset }));
        }
        *offset = offset.saturating_add(count);
        if left == 0 {
            return ControlFlow::Break(Ok(()));
        }
        let prepared = match (&self.operation, &mut self.bounce) {
            (
                DiskOperation::Read { buffers, .. } | DiskOperation::Write { buffers, .. },
                Some(bounce),
            ) => bounce.prepare(buffers),
            _ => Ok(()),
        };
        if let Err(source) = prepared {
            return ControlFlow::Break(Err(self.error(source)));
        }
        self.fill_bounce();
        ControlFlow::Continue(())
    }

    fn failed(&mut self, errno: Errno) -> ControlFlow<Result<(), DiskError>> {
        let extent = self.operation.extent();
        match (&self.operation, &self.zeroing) {
            // Discarding is a hint: space that cannot be released stays allocated.
            (DiskOperation::Discard { .. }, _) if unsupported(errno) => {
                return ControlFlow::Break(Ok(()));
            }
            (DiskOperation::WriteZeroes { .. }, Zeroing::Punch) if unsupported(errno) => {
                self.zeroing = Zeroing::Mark;
                return ControlFlow::Continue(());
            }
            (DiskOperation::WriteZeroes { .. }, Zeroing::Mark) if unsupported(errno) => {
                self.zeroing = Zeroing::Write(Buffers::zeroes(extent.len));
                return ControlFlow::Continue(());
            }
            _ => {}
        }
        ControlFlow::Break(Err(self.error(errno.into())))
    }
}

#[cfg(test)]
#[path = "job_test.rs"]
mod tests;
