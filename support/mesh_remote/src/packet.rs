//! Sending and receiving one packet.

use crate::error::ChannelError;
use mesh::wire::MAX_BYTES;
use mesh::wire::MAX_FDS;
use mesh::wire::Packet;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::ReturnFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

const FD_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS));

/// What was received.
#[derive(Debug)]
pub(crate) enum Received {
    /// A packet.
    Packet(Packet),
    /// The peer has closed its end, or will send nothing more.
    End,
    /// The packet breaks a limit. Its file descriptors are closed.
    Refused(ChannelError),
}

/// Sends a packet, if that does not block. Whether the socket is non-blocking has no effect: a process that has a
/// duplicate of it can change that.
pub(crate) fn send(socket: BorrowedFd<'_>, packet: &Packet) -> io::Result<()> {
    let fds: Vec<_> = packet.fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); FD_SPACE];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = [IoSlice::new(&packet.bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &bytes,
            &mut ancillary,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )
    })?;
    Ok(())
}

/// Receives a packet into `buffer`, which has room for [`MAX_BYTES`], if that does not block, as [`send`].
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8; MAX_BYTES],
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); FD_SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(buffer)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )
    })?;
    // All that arrived is taken out here, so that an error closes it.
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received.map(mesh::Fd::from));
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Ok(Received::Refused(ChannelError::TooLong));
    }
    if message.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_FDS {
        return Ok(Received::Refused(ChannelError::TooManyFds));
    }
    // A packet without bytes is the end too: no message is that short, and nothing tells it from the end.
    if message.bytes == 0 {
        return Ok(Received::End);
    }
    Ok(Received::Packet(Packet {
        bytes: buffer[..message.bytes].to_vec(),
        fds,
    }))
}
