//! Frames over a stream socket: each after its length, 4 bytes in network byte order.

use crate::NetBackend;
use crate::Offloads;
use crate::ReceiveError;
use crate::header;
use parking_lot::Mutex;
use rustix::net::SendFlags;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use virtio::GuestIoVec;

const PREFIX: usize = 4;
const HEADER: usize = header::LEN as usize;
/// A frame's header takes the place of its prefix and of some bytes before that.
const BEFORE_PREFIX: usize = HEADER - PREFIX;
/// The longest frame.
const MAX_FRAME: usize = header::MAX_LEN as usize - HEADER;
/// The room for frames that have arrived: the more there are, the fewer reads.
const RECEIVE_BYTES: usize = BEFORE_PREFIX + 4 * (PREFIX + MAX_FRAME);

/// A network behind a stream socket. It offers no offloads.
#[derive(Debug)]
pub(crate) struct FrameStream {
    socket: UnixStream,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing>,
    description: serde_json::Value,
}

/// What has arrived: bytes `start` to `end`, which begin with a prefix. There are always [`BEFORE_PREFIX`] bytes before it.
#[derive(Debug)]
struct Incoming {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

/// A frame with its prefix that is being sent; the first `sent` bytes need not be.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl FrameStream {
    /// A network at the other end of `socket`. `description` is for reports.
    pub(crate) fn new(socket: UnixStream, description: serde_json::Value) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            incoming: Mutex::new(Incoming {
                bytes: vec![0; RECEIVE_BYTES].into_boxed_slice(),
                start: BEFORE_PREFIX,
                end: BEFORE_PREFIX,
            }),
            outgoing: Mutex::new(Outgoing::default()),
            description,
        })
    }
}

impl Incoming {
    /// The next frame's place in `bytes`, once all of it has arrived.
    fn next(&mut self, socket: &UnixStream) -> Result<Range<usize>, ReceiveError> {
        loop {
            let arrived = &self.bytes[self.start..self.end];
            if let Some((prefix, rest)) = arrived.split_first_chunk::<PREFIX>() {
                let claimed = u32::from_be_bytes(*prefix);
                let len = usize::try_from(claimed).unwrap_or(usize::MAX);
                if !(1..=MAX_FRAME).contains(&len) {
                    // Where the next frame begins is unknown.
                    let text = format!("its next frame claims to have {claimed} bytes");
                    let error = io::Error::new(io::ErrorKind::InvalidData, text);
                    return Err(ReceiveError::Gone(error));
                }
                if rest.len() >= len {
                    let start = self.start + PREFIX;
                    self.start = start + len;
                    return Ok(start..self.start);
                }
            }
            self.read(socket)?;
        }
    }

    fn read(&mut self, socket: &UnixStream) -> Result<(), ReceiveError> {
        if self.bytes.len() - self.start < PREFIX + MAX_FRAME || self.start == self.end {
            self.bytes.copy_within(self.start..self.end, BEFORE_PREFIX);
            self.end -= self.start - BEFORE_PREFIX;
            self.start = BEFORE_PREFIX;
        }
        let room = &mut self.bytes[self.end..];
        match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut *room)) {
            Ok(0) => Err(ReceiveError::Gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(len) => {
                self.end += len;
                Ok(())
            }
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(ReceiveError::Empty),
            Err(error) => Err(ReceiveError::Gone(error.into())),
        }
    }
}

impl Outgoing {
    fn flush(&mut self, socket: &UnixStream) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            let left = &self.bytes[self.sent..];
            let sent =
                rustix::io::retry_on_intr(|| rustix::net::send(socket, left, SendFlags::NOSIGNAL));
            match sent {
                Ok(len) => self.sent += len,
                Err(error) => {
                    if error != rustix::io::Errno::WOULDBLOCK {
                        self.bytes.clear();
                        self.sent = 0;
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

impl AsFd for FrameStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl NetBackend for FrameStream {
    fn offloads(&self) -> Offloads {
        Offloads::NONE
    }

    fn set_guest_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn receive(&self, buffers: &mut GuestIoVec, spill: &mut [u8]) -> Result<usize, ReceiveError> {
        let mut incoming = self.incoming.lock();
        let frame = incoming.next(&self.socket)?;
        let message = &mut incoming.bytes[frame.start - HEADER..frame.end];
        message[..HEADER].fill(0);
        let (_, rest) = message.split_at(buffers.copy_from(message));
        spill[..rest.len()].copy_from_slice(rest);
        Ok(message.len())
    }

    fn discard(&self) -> Result<(), ReceiveError> {
        self.incoming.lock().next(&self.socket).map(drop)
    }

    fn send(&self, frame: &GuestIoVec) -> io::Result<()> {
        let mut outgoing = self.outgoing.lock();
        outgoing.flush(&self.socket)?;
        let Some(len) = frame.len().checked_sub(HEADER).filter(|len| *len > 0) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let prefix = u32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        outgoing.bytes.resize(frame.len(), 0);
        frame.copy_to(&mut outgoing.bytes);
        outgoing.bytes[BEFORE_PREFIX..HEADER].copy_from_slice(&prefix.to_be_bytes());
        outgoing.sent = BEFORE_PREFIX;
        match outgoing.flush(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.outgoing.lock().flush(&self.socket)
    }

    fn inspect(&self) -> serde_json::Value {
        self.description.clone()
    }
}

#[cfg(test)]
#[path = "frame_stream_test.rs"]
mod tests;
