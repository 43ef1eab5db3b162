//! A backend without a network: the other end is a socket.

use crate::NetBackend;
use crate::Offloads;
use parking_lot::Mutex;
use rustix::net::AddressFamily;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub(crate) const ALL_OFFLOADS: Offloads = Offloads {
    checksum: true,
    tso4: true,
    tso6: true,
    ecn: true,
    ufo: true,
};

/// A cable whose other end the test holds.
pub(crate) struct Cable {
    socket: OwnedFd,
    /// What the guest takes.
    pub(crate) offloads: Arc<Mutex<Offloads>>,
}

impl Cable {
    /// A cable and its other end, which gives and takes frames with their headers.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, peer) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let offloads = Arc::new(Mutex::new(Offloads::NONE));
        Ok((Self { socket, offloads }, peer))
    }
}

impl AsFd for Cable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl NetBackend for Cable {
    fn offloads(&self) -> Offloads {
        ALL_OFFLOADS
    }

    fn set_guest_offloads(&self, offloads: Offloads) -> io::Result<()> {
        *self.offloads.lock() = offloads;
        Ok(())
    }
}
