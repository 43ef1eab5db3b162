//! Waiting for file descriptors.

use crate::Driver;
use rustix::io::Errno;
use rustix::io::retry_on_intr;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// The most that is read from a regular file in one go, in bytes.
const FILE_CHUNK: usize = 1 << 20;

/// What a pipe takes without blocking once poll(2) says it is writable, in bytes (POSIX `PIPE_BUF`).
const PIPE_BUF: usize = 4096;

/// A file descriptor could not be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch a file descriptor")]
pub struct RegisterError(#[source] io::Error);

/// A file descriptor whose readiness can be awaited.
///
/// Pipes, sockets, terminals, eventfds and the like are watched by epoll(7). Regular files, which epoll
/// refuses, are always ready, and are read and written on threads made for blocking.
pub struct PolledFd<T> {
    driver: Driver,
    file: Arc<T>,
    watch: Watch<T>,
}

enum Watch<T> {
    /// Calls on the descriptor do not block.
    NonBlocking(smol::Async<Arc<T>>),
    /// Calls on the descriptor block unless poll says they do not.
    Shared(smol::Async<Arc<T>>),
    /// A regular file or a block device.
    File,
}

impl<T: AsFd + Send + Sync + 'static> PolledFd<T> {
    /// Watches `fd`, and makes it non-blocking if epoll takes it.
    ///
    /// That holds for every duplicate of the descriptor, also in other processes: for standard input
    /// and the like use [`PolledFd::new_shared`].
    pub fn new(driver: &Driver, fd: T) -> Result<Self, RegisterError> {
        Self::register(driver, fd, |file| {
            let io = smol::Async::new_nonblocking(file)?;
            // Only now: files that epoll refuses stay as they are.
            rustix::io::ioctl_fionbio(&io, true)?;
            Ok(Watch::NonBlocking(io))
        })
    }

    /// Watches `fd`, and leaves its file status flags as they are.
    ///
    /// Each call on the descriptor waits until it is ready first, so this is for descriptors that
    /// nobody else reads at the same time.
    pub fn new_shared(driver: &Driver, fd: T) -> Result<Self, RegisterError> {
        Self::register(driver, fd, |file| {
            Ok(Watch::Shared(smol::Async::new_nonblocking(file)?))
        })
    }

    fn register(
        driver: &Driver,
        fd: T,
        watch: impl FnOnce(Arc<T>) -> io::Result<Watch<T>>,
    ) -> Result<Self, RegisterError> {
        let file = Arc::new(fd);
        let watch = match watch(file.clone()) {
            Ok(watch) => watch,
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => Watch::File,
            Err(error) => return Err(RegisterError(error)),
        };
        Ok(Self {
            driver: driver.clone(),
            file,
            watch,
        })
    }

    /// Waits until reading does not block: there is data, or the end.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.watch {
            Watch::NonBlocking(io) | Watch::Shared(io) => io.readable().await,
            Watch::File => Ok(()),
        }
    }

    /// Waits until writing does not block: there is room, or nobody to read.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.watch {
            Watch::NonBlocking(io) | Watch::Shared(io) => io.writable().await,
            Watch::File => Ok(()),
        }
    }

    /// Reads some bytes into `buffer`; 0 is the end.
    ///
    /// Dropping the future loses nothing, except on a regular file, whose position may have moved.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if !matches!(self.watch, Watch::File) {
            return self
                .read_with(|file| Ok(retry_on_intr(|| rustix::io::read(file, &mut *buffer))?))
                .await;
        }
        let file = self.file.clone();
        let mut chunk = vec![0; buffer.len().min(FILE_CHUNK)];
        let read = self.driver.unblock("read file", move || {
            let len = retry_on_intr(|| rustix::io::read(&*file, &mut *chunk))?;
            chunk.truncate(len);
            io::Result::Ok(chunk)
        });
        let chunk = read.await.map_err(io::Error::other)??;
        buffer[..chunk.len()].copy_from_slice(&chunk);
        Ok(chunk.len())
    }

    /// Writes some bytes of `data`, and gives their number.
    ///
    /// Once the future was polled, dropping it does not tell whether bytes were written to a regular file.
    pub async fn write(&self, data: &[u8]) -> io::Result<usize> {
        let data = match &self.watch {
            Watch::NonBlocking(_) => data,
            Watch::Shared(_) => &data[..data.len().min(PIPE_BUF)],
            Watch::File => {
                let file = self.file.clone();
                let chunk = data[..data.len().min(FILE_CHUNK)].to_vec();
                let write = self.driver.unblock("write file", move || {
                    retry_on_intr(|| rustix::io::write(&*file, &chunk))
                });
                return Ok(write.await.map_err(io::Error::other)??);
            }
        };
        self.write_with(|file| Ok(retry_on_intr(|| rustix::io::write(file, data))?))
            .await
    }

    /// Writes all of `data`. On an error some of it may have been written.
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match self.write(data).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                len => data = &data[len..],
            }
        }
        Ok(())
    }

    /// Does `operation`, an `accept` say, once the descriptor is readable; again if it would block.
    ///
    /// On a regular file it is done at once, and blocks the thread for as long as it takes.
    pub async fn read_with<R>(
        &self,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        match &self.watch {
            Watch::NonBlocking(io) => io.read_with(|file| operation(file)).await,
            Watch::Shared(io) => loop {
                io.readable().await?;
                match operation(&self.file) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            },
            Watch::File => operation(&self.file),
        }
    }

    /// Does `operation` once the descriptor is writable; again if it would block.
    ///
    /// On a regular file it is done at once, and blocks the thread for as long as it takes.
    pub async fn write_with<R>(
        &self,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        match &self.watch {
            Watch::NonBlocking(io) => io.write_with(|file| operation(file)).await,
            Watch::Shared(io) => loop {
                io.writable().await?;
                match operation(&self.file) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            },
            Watch::File => operation(&self.file),
        }
    }
}

impl<T> PolledFd<T> {
    /// What is watched.
    pub fn get(&self) -> &T {
        &self.file
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for PolledFd<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolledFd")
            .field("file", &self.file)
            .field("polled", &!matches!(self.watch, Watch::File))
            .finish()
    }
}

#[cfg(test)]
#[path = "fd_test.rs"]
mod tests;
