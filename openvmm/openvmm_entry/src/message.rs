//! What is printed, on standard output and standard error. Nothing here panics: either may be closed, and a VM outlives
//! its readers.

use crate::exit::ExitCode;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

/// Prints a line on standard error, formatted as by `format!`. A failure is ignored: there is nowhere to report it.
macro_rules! message {
    ($($argument:tt)*) => {
        $crate::message::to_stderr(format_args!($($argument)*))
    };
}
pub(crate) use message;

/// Prints a line on standard error.
pub(crate) fn to_stderr(text: fmt::Arguments<'_>) {
    let line = format!("{text}\n");
    let _ = write_through(rustix::stdio::stderr(), line.as_bytes());
}

/// Prints what a command was asked for. Its exit code says whether all of it was written.
pub(crate) fn to_stdout(text: &str) -> ExitCode {
    match write_through(rustix::stdio::stdout(), text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            message!("error: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to the descriptor: the standard library's line buffer would split the output at every newline.
pub(crate) fn write_through(stream: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry(stream, PollFlags::OUT, || rustix::io::write(stream, bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Repeats a call on `stream` that was interrupted, or that would block: another process can make standard streams
/// nonblocking.
pub(crate) fn retry<T>(
    stream: BorrowedFd<'_>,
    readiness: PollFlags,
    mut call: impl FnMut() -> rustix::io::Result<T>,
) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                match rustix::event::poll(&mut [PollFd::new(&stream, readiness)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            result => return Ok(result?),
        }
    }
}
