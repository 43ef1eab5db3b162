//! An eventfd as a flag.

use log_limit::LogLimit;
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

/// A non-blocking eventfd(2) used as a flag that can be waited for with poll(2).
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Creates a flag that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(rustix::event::eventfd(0, flags)?))
    }

    /// Sets the flag.
    pub fn set(&self) {
        signal(self.0.as_fd());
    }

    /// Clears the flag. Returns whether it was set.
    pub fn clear(&self) -> bool {
        let mut count = [0; 8];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut count)).is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

static FAILURES: LogLimit = LogLimit::new();

/// Adds one to an eventfd. If its counter is full it is set already.
pub(crate) fn signal(fd: BorrowedFd<'_>) {
    match rustix::io::retry_on_intr(|| rustix::io::write(fd, &1u64.to_ne_bytes())) {
        Ok(_) | Err(Errno::AGAIN) => {}
        Err(error) => {
            if let Some(suppressed) = FAILURES.allow() {
                tracing::error!(%error, suppressed, "failed to signal an eventfd");
            }
        }
    }
}
