//! Waits for eventfds.

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

/// A set of eventfds that one thread waits for and resets.
#[derive(Debug)]
pub struct EventSet(Vec<OwnedFd>);

impl EventSet {
    /// Creates a set of duplicates of `events`.
    pub fn new(events: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let events = events.iter().map(BorrowedFd::try_clone_to_owned);
        Ok(Self(events.collect::<io::Result<_>>()?))
    }

    /// The descriptors.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(OwnedFd::as_fd)
    }

    /// Waits until at least one is signalled, and resets those that are.
    pub fn wait(&self) -> io::Result<()> {
        let mut polled: Vec<_> = self
            .fds()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        loop {
            match rustix::event::poll(&mut polled, None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        for (polled, fd) in polled.iter().zip(&self.0) {
            if polled.revents().contains(PollFlags::IN) {
                match rustix::io::read(fd, &mut [0; 8]) {
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            } else if !polled.revents().is_empty() {
                return Err(io::Error::other(
                    "failed to wait for an event: its descriptor is invalid",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::EventfdFlags;

    #[test]
    fn signalled_events_are_reset() {
        let new = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let (a, b) = (new(), new());
        let events = EventSet::new(&[a.as_fd(), b.as_fd()]).unwrap();
        rustix::io::write(&b, &3u64.to_ne_bytes()).unwrap();
        events.wait().unwrap();
        let mut polled = [PollFd::new(&b, PollFlags::IN)];
        let now = rustix::time::Timespec::default();
        assert_eq!(rustix::event::poll(&mut polled, Some(&now)).unwrap(), 0);
    }
}
