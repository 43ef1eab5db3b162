use super::*;

/// Answers the job's calls one after the other, and returns the calls and the job's result.
fn run(
    operation: DiskOperation,
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
            assert_eq!(calls.len(), answers.len(), "finished early");
            return (calls, result);
        }
    }
    panic!("not finished after {calls:?}");
}

fn total(pieces: &[libc::iovec]) -> usize {
    pieces.iter().map(|piece| piece.iov_len).sum()
}

fn write(offset: u64, len: u64) -> DiskOperation {
    let buffers = Buffers::zeroes(len);
    DiskOperation::Write { offset, buffers }
}

fn zero(space: Space) -> DiskOperation {
    let extent = Extent {
        offset: 512,
        len: (1 << 20) + 512,
    };
    DiskOperation::WriteZeroes { extent, space }
}

#[test]
fn short_and_interrupted_transfers_continue() {
    let answers = [Ok(100), Err(Errno::INTR), Err(Errno::AGAIN), Ok(99_900)];
    let (calls, result) = run(write(512, 100_000), &answers);
    assert!(result.is_ok());
    let rest = "write 612 99900";
    assert_eq!(calls, ["write 512 100000", rest, rest, rest]);
}

#[test]
fn a_transfer_of_nothing_is_an_error() {
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
    assert!(run(DiskOperation::Flush, &[Err(Errno::IO)]).1.is_err());
}

#[test]
fn zeroes_are_written_where_fallocate_is_unsupported() {
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
    // Space that must stay allocated is never punched.
    let (calls, _) = run(zero(Space::Keep), &[Ok(0)]);
    assert_eq!(calls, [format!("{mark} 512 1049088")]);
    assert!(run(zero(Space::Keep), &[Err(Errno::IO)]).1.is_err());
    assert!(run(zero(Space::Keep), &[no, Err(Errno::INVAL)]).1.is_err());
}

#[test]
fn an_unsupported_discard_is_not_an_error() {
    let extent = Extent {
        offset: 0,
        len: 512,
    };
    let discard = || DiskOperation::Discard { extent };
    assert!(run(discard(), &[Err(Errno::OPNOTSUPP)]).1.is_ok());
    assert!(run(discard(), &[Err(Errno::IO)]).1.is_err());
}
