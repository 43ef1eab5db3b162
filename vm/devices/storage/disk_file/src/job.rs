//! An operation as the system calls it takes, whoever makes them.

use disk_backend::Buffers;
use disk_backend::DiskError;
use disk_backend::Extent;
use disk_backend::Operation;
use disk_backend::Space;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::ops::ControlFlow;

/// The kernel takes at most this many pieces at once (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

/// A system call on the disk's file. Pieces of memory are valid for as long as the job lives and is not advanced.
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
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Zeroing {
    /// By releasing the space.
    Punch,
    /// By marking it as unwritten.
    Mark,
    /// By writing them.
    Write,
}

#[derive(Debug)]
enum Work {
    Read {
        offset: u64,
        buffers: Buffers,
    },
    Write {
        offset: u64,
        buffers: Buffers,
    },
    Sync,
    Discard {
        extent: Extent,
    },
    Zero {
        extent: Extent,
        way: Zeroing,
        zeroes: Buffers,
    },
}

/// An operation on its way.
#[derive(Debug)]
pub(crate) struct Job(Work);

/// Whether the file system or device just does not do that.
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
    pub(crate) fn new(operation: Operation) -> Self {
        Self(match operation {
            Operation::Read { offset, buffers } => Work::Read { offset, buffers },
            Operation::Write { offset, buffers } => Work::Write { offset, buffers },
            Operation::Flush => Work::Sync,
            Operation::Discard { extent } => Work::Discard { extent },
            Operation::WriteZeroes { extent, space } => Work::Zero {
                extent,
                way: match space {
                    Space::Keep => Zeroing::Mark,
                    Space::Release => Zeroing::Punch,
                },
                zeroes: Buffers::zeroes(0),
            },
        })
    }

    /// Whether this is a flush.
    pub(crate) fn is_sync(&self) -> bool {
        matches!(self.0, Work::Sync)
    }

    /// Whether there is nothing to do at all.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.0 {
            Work::Read { buffers, .. } | Work::Write { buffers, .. } => buffers.is_empty(),
            Work::Sync => false,
            Work::Discard { extent } | Work::Zero { extent, .. } => extent.len == 0,
        }
    }

    /// What to do next.
    pub(crate) fn call(&self) -> Call<'_> {
        let keep = FallocateFlags::KEEP_SIZE;
        match &self.0 {
            Work::Read { offset, buffers } => Call::Read {
                offset: *offset,
                pieces: limited(buffers),
            },
            Work::Write { offset, buffers } => Call::Write {
                offset: *offset,
                pieces: limited(buffers),
            },
            Work::Sync => Call::Sync,
            Work::Discard { extent } => Call::Allocate {
                mode: FallocateFlags::PUNCH_HOLE | keep,
                extent: *extent,
            },
            Work::Zero {
                extent,
                way,
                zeroes,
            } => match way {
                Zeroing::Punch => Call::Allocate {
                    mode: FallocateFlags::PUNCH_HOLE | keep,
                    extent: *extent,
                },
                Zeroing::Mark => Call::Allocate {
                    mode: FallocateFlags::ZERO_RANGE | keep,
                    extent: *extent,
                },
                Zeroing::Write => Call::Write {
                    offset: extent.offset,
                    pieces: limited(zeroes),
                },
            },
        }
    }

    /// Takes the result of the call, and says whether another one is needed.
    pub(crate) fn advance(
        &mut self,
        result: Result<usize, Errno>,
    ) -> ControlFlow<Result<(), DiskError>> {
        let count = match result {
            Ok(count) => count as u64,
            Err(Errno::INTR | Errno::AGAIN) => return ControlFlow::Continue(()),
            Err(errno) => return self.failed(errno),
        };
        match &mut self.0 {
            Work::Read { offset, buffers } => moved("read", offset, buffers, count),
            Work::Write { offset, buffers } => moved("write", offset, buffers, count),
            Work::Sync | Work::Discard { .. } => ControlFlow::Break(Ok(())),
            Work::Zero {
                extent,
                way,
                zeroes,
            } => {
                if *way != Zeroing::Write {
                    return ControlFlow::Break(Ok(()));
                }
                let count = count.min(extent.len);
                if count == 0 {
                    return truncated("write zeroes", extent.offset);
                }
                extent.offset += count;
                extent.len -= count;
                if extent.len == 0 {
                    return ControlFlow::Break(Ok(()));
                }
                *zeroes = Buffers::zeroes(extent.len);
                ControlFlow::Continue(())
            }
        }
    }

    fn failed(&mut self, errno: Errno) -> ControlFlow<Result<(), DiskError>> {
        let (operation, offset) = match &mut self.0 {
            Work::Read { offset, .. } => ("read", *offset),
            Work::Write { offset, .. } => ("write", *offset),
            Work::Sync => ("flush", 0),
            // A hint: what cannot be released stays.
            Work::Discard { .. } if unsupported(errno) => return ControlFlow::Break(Ok(())),
            Work::Discard { extent } => ("discard", extent.offset),
            Work::Zero {
                extent,
                way,
                zeroes,
            } => {
                if *way != Zeroing::Write && unsupported(errno) {
                    *way = match way {
                        Zeroing::Punch => Zeroing::Mark,
                        _ => Zeroing::Write,
                    };
                    *zeroes = Buffers::zeroes(extent.len);
                    return ControlFlow::Continue(());
                }
                ("write zeroes", extent.offset)
            }
        };
        ControlFlow::Break(Err(DiskError::Io {
            operation,
            offset,
            source: errno.into(),
        }))
    }
}

fn truncated(operation: &'static str, offset: u64) -> ControlFlow<Result<(), DiskError>> {
    ControlFlow::Break(Err(DiskError::Truncated { operation, offset }))
}

fn moved(
    operation: &'static str,
    offset: &mut u64,
    buffers: &mut Buffers,
    count: u64,
) -> ControlFlow<Result<(), DiskError>> {
    if count == 0 {
        return truncated(operation, *offset);
    }
    // The kernel never moves more than it was asked to.
    *offset = offset.saturating_add(count);
    buffers.advance(count);
    if buffers.is_empty() {
        return ControlFlow::Break(Ok(()));
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the job's calls one after the other, and returns the calls and the job's end.
    fn run(
        operation: Operation,
        answers: &[Result<usize, Errno>],
    ) -> (Vec<String>, Result<(), DiskError>) {
        let mut job = Job::new(operation);
        let mut calls = Vec::new();
        for answer in answers {
            calls.push(match job.call() {
                Call::Read { offset, pieces } => format!("read {offset} {}", total(pieces)),
                Call::Write { offset, pieces } => format!("write {offset} {}", total(pieces)),
                Call::Sync => "sync".into(),
                Call::Allocate { mode, extent } => {
                    format!("{:?} {} {}", mode.bits(), extent.offset, extent.len)
                }
            });
            if let ControlFlow::Break(result) = job.advance(*answer) {
                assert_eq!(calls.len(), answers.len(), "ended early");
                return (calls, result);
            }
        }
        panic!("goes on after {calls:?}");
    }

    fn total(pieces: &[libc::iovec]) -> usize {
        pieces.iter().map(|piece| piece.iov_len).sum()
    }

    fn write(offset: u64, len: u64) -> Operation {
        let buffers = Buffers::zeroes(len);
        Operation::Write { offset, buffers }
    }

    fn zero(space: Space) -> Operation {
        let extent = Extent {
            offset: 512,
            len: (1 << 20) + 512,
        };
        Operation::WriteZeroes { extent, space }
    }

    #[test]
    fn what_is_left_is_asked_for_again() {
        let answers = [Ok(100), Err(Errno::INTR), Err(Errno::AGAIN), Ok(99_900)];
        let (calls, result) = run(write(512, 100_000), &answers);
        assert!(result.is_ok());
        let rest = "write 612 99900";
        assert_eq!(calls, ["write 512 100000", rest, rest, rest]);
    }

    #[test]
    fn nothing_moved_is_an_error() {
        let (_, result) = run(write(512, 1024), &[Ok(512), Ok(0)]);
        assert!(matches!(
            result,
            Err(DiskError::Truncated { offset: 1024, .. })
        ));
        let (_, result) = run(write(512, 1024), &[Ok(512), Err(Errno::NOSPC)]);
        let Err(DiskError::Io {
            offset: 1024,
            source,
            ..
        }) = result
        else {
            panic!("{result:?}");
        };
        assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
        assert!(run(Operation::Flush, &[Err(Errno::IO)]).1.is_err());
    }

    #[test]
    fn zeroes_are_written_where_nothing_else_works() {
        let no = Err(Errno::OPNOTSUPP);
        let (calls, result) = run(zero(Space::Release), &[no, no, Ok(1 << 20), Ok(512)]);
        assert!(result.is_ok());
        let punch = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
        let mark = (libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE) as u32;
        assert_eq!(
            calls,
            [
                format!("{punch} 512 1049088"),
                format!("{mark} 512 1049088"),
                "write 512 1048576".into(),
                "write 1049088 512".into()
            ]
        );
        // Space that is to stay is never punched.
        let (calls, _) = run(zero(Space::Keep), &[Ok(0)]);
        assert_eq!(calls, [format!("{mark} 512 1049088")]);
        assert!(run(zero(Space::Keep), &[Err(Errno::IO)]).1.is_err());
        assert!(run(zero(Space::Keep), &[no, Err(Errno::INVAL)]).1.is_err());
    }

    #[test]
    fn a_discard_that_cannot_be_is_no_error() {
        let extent = Extent {
            offset: 0,
            len: 512,
        };
        let discard = || Operation::Discard { extent };
        assert!(run(discard(), &[Err(Errno::OPNOTSUPP)]).1.is_ok());
        assert!(run(discard(), &[Err(Errno::IO)]).1.is_err());
    }
}
