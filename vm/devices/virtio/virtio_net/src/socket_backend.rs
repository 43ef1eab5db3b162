//! A backend for tests: a socket instead of a network.

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

/// A backend whose peer is a socket of the test.
pub(crate) struct SocketBackend {
    socket: OwnedFd,
    /// The offloads that the guest accepts.
    pub(crate) offloads: Arc<Mutex<Offloads>>,
}

impl SocketBackend {
    /// Creates a backend and its peer, which sends and receives frames with their headers.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, peer) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::over(socket), peer))
    }

    /// Creates a backend over a connected socket that does not block.
    pub(crate) fn over(socket: OwnedFd) -> Self {
        Self {
            socket,
            offloads: Arc::new(Mutex::new(Offloads::NONE)),
        }
    }
}

impl AsFd for SocketBackend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl NetBackend for SocketBackend {
    fn offloads(&self) -> Offloads {
        ALL_OFFLOADS
    }

    fn set_guest_offloads(&self, offloads: Offloads) -> io::Result<()> {
        *self.offloads.lock() = offloads;
        Ok(())
    }
}
