//! Packets: what carries a message to another process, and why one is refused.

use crate::decode_error::DecodeError;
use crate::decode_error::MAX_DEPTH;
use futures::future::BoxFuture;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The most bytes in a packet.
pub const MAX_BYTES: usize = 64 << 10;

/// The most file descriptors in a packet.
pub const MAX_FDS: usize = 16;

/// A message, or the reply to one.
#[derive(Debug, Default)]
pub struct Packet {
    /// The encoded message, at most [`MAX_BYTES`].
    pub bytes: Vec<u8>,
    /// The file descriptors it refers to, at most [`MAX_FDS`].
    pub fds: Vec<Fd>,
}

/// The packet with the reply to a received request, once its handler has answered or dropped it.
pub type Answer = BoxFuture<'static, Packet>;

/// Why a message is not sent to another process.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is too long.
    #[error("the message has {len} bytes, more than the {MAX_BYTES} of a packet")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It carries too many file descriptors.
    #[error("the message carries {count} file descriptors, more than the {MAX_FDS} of a packet")]
    TooManyFds {
        /// Their number.
        count: usize,
    },
    /// It nests too deep for its receiver.
    #[error("the message nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It carries several requests.
    #[error("the message carries {count} requests, and a packet can have one")]
    SeveralRequests {
        /// Their number.
        count: usize,
    },
}

/// Why a received packet is not a message of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// Its bytes are no such message.
    #[error("cannot decode the message")]
    Decode(#[from] DecodeError),
    /// It has file descriptors that the message does not use. They are closed.
    #[error("{count} file descriptors came with a message that does not use them")]
    UnexpectedFds {
        /// Their number.
        count: usize,
    },
    /// It carries several requests.
    #[error("the message carries {count} requests instead of at most one")]
    SeveralRequests {
        /// Their number.
        count: usize,
    },
}

/// A file descriptor as the field of a message. It stays open in the sender until the message is sent.
#[derive(Debug, Clone)]
pub struct Fd(Arc<OwnedFd>);

impl From<OwnedFd> for Fd {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl Fd {
    /// The file descriptor itself: a duplicate, if there are clones of this.
    pub fn into_owned(self) -> io::Result<OwnedFd> {
        Arc::try_unwrap(self.0).or_else(|shared| shared.try_clone())
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
