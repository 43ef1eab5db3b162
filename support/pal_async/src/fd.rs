//! Waiting for file descriptors.

use std::io;
use std::os::fd::AsFd;

/// A file descriptor could not be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch a file descriptor")]
pub struct RegisterError(#[source] io::Error);

/// A file descriptor whose readiness can be awaited: a pipe, socket, terminal, eventfd and the like.
#[derive(Debug)]
pub struct PolledFd<T>(smol::Async<T>);

impl<T: AsFd> PolledFd<T> {
    /// Watches `fd`, and makes it non-blocking.
    ///
    /// That holds for every duplicate of the descriptor, also in other processes: not for standard input and the
    /// like. Regular files cannot be watched.
    pub(crate) fn new(fd: T) -> Result<Self, RegisterError> {
        let watched = smol::Async::new_nonblocking(fd).and_then(|io| {
            // Only now: files that epoll(7) refuses stay as they are.
            rustix::io::ioctl_fionbio(&io, true)?;
            Ok(io)
        });
        watched.map(Self).map_err(RegisterError)
    }

    /// Waits until reading does not block: there is data, or the end.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Does `operation`, an `accept` or a `read` say, once the descriptor is readable; again if it would block.
    ///
    /// Dropping the future loses nothing that `operation` took.
    pub async fn read_with<R>(&self, operation: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.0.read_with(operation).await
    }

    /// Does `operation` once the descriptor is writable; again if it would block.
    pub async fn write_with<R>(&self, operation: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.0.write_with(operation).await
    }
}

impl<T> AsRef<T> for PolledFd<T> {
    fn as_ref(&self) -> &T {
        self.0.get_ref()
    }
}

#[cfg(test)]
#[path = "fd_test.rs"]
mod tests;
