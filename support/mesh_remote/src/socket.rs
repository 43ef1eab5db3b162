//! A socket that packets are awaited on.

use crate::error::ChannelError;
use crate::error::ChannelOpenError;
use crate::packet;
use crate::packet::Received;
use mesh::wire::MAX_BYTES;
use mesh::wire::Packet;
use pal_async::Driver;
use pal_async::PolledFd;
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::Shutdown;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::sockopt;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

/// Two connected sockets, for the two ends of a channel. They are closed on exec.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// One end of a channel's socket.
pub(crate) struct Socket {
    fd: PolledFd<OwnedFd>,
    buffer: Mutex<Box<[u8; MAX_BYTES]>>,
}

impl Socket {
    pub(crate) fn new(driver: &Driver, fd: OwnedFd) -> Result<Self, ChannelOpenError> {
        let domain = sockopt::socket_domain(&fd);
        let kind = sockopt::socket_type(&fd);
        if (domain, kind) != (Ok(AddressFamily::UNIX), Ok(SocketType::SEQPACKET)) {
            return Err(ChannelOpenError::NotSeqPacket);
        }
        Ok(Self {
            fd: driver.polled_fd(fd)?,
            buffer: Mutex::new(Box::new([0; MAX_BYTES])),
        })
    }

    /// Sends a packet once there is room. Gives whether there is still a peer to receive it.
    pub(crate) async fn send(&self, packet: &Packet) -> Result<bool, ChannelError> {
        let sent = self
            .fd
            .write_with(|socket| packet::send(socket.as_fd(), packet));
        match sent.await {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(ChannelError::Socket(error)),
        }
    }

    /// Waits for a packet. `None` is the end: the peer has closed its end, or sends nothing more.
    pub(crate) async fn receive(&self) -> Result<Option<Packet>, ChannelError> {
        let received = self
            .fd
            .read_with(|socket| packet::receive(socket.as_fd(), &mut self.buffer.lock()));
        match received.await {
            Ok(Received::Packet(packet)) => Ok(Some(packet)),
            Ok(Received::End) => Ok(None),
            Ok(Received::Refused(error)) => Err(error),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(ChannelError::Socket(error)),
        }
    }

    /// Tells the peer that nothing more will be sent, or that nothing more will be received.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        // Fails only if the peer is gone, which the next call finds out.
        let _ = rustix::net::shutdown(self.fd.as_ref(), how);
    }
}

/// Whether the error is that the peer has closed its end, perhaps with packets in it that it had not read.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::PIPE, Errno::CONNRESET].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|code| gone.contains(&code))
}
