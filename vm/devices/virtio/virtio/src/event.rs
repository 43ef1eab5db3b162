use rustix::event::EventfdFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

/// An eventfd(2), non-blocking: a flag that can be waited for with poll(2).
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// A flag that is down.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(rustix::event::eventfd(0, flags)?))
    }

    /// Raises the flag.
    pub fn set(&self) {
        signal(self.0.as_fd());
    }

    /// Lowers the flag, and says whether it was up.
    pub fn clear(&self) -> bool {
        let mut count = [0; 8];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut count)).is_ok()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Adds one to an eventfd, of which only a full counter keeps it, and then it is up already.
pub(crate) fn signal(fd: BorrowedFd<'_>) {
    match rustix::io::retry_on_intr(|| rustix::io::write(fd, &1u64.to_ne_bytes())) {
        Ok(_) | Err(Errno::AGAIN) => {}
        Err(error) => tracing::error!(%error, "failed to signal an eventfd"),
    }
}
