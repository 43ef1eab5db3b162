//! How a channel fails to open, and how it ends.

use crate::limits::MAX_REQUESTS;
use mesh::wire::EncodeError;
use mesh::wire::ReceiveError;
use pal_async::RegisterError;
use pal_async::Task;
use std::io;

/// Why a socket cannot be the end of a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelOpenError {
    /// It is another kind of socket, or none.
    #[error("a channel needs a Unix socket of the type SOCK_SEQPACKET")]
    NotSeqPacket,
    /// It cannot be watched.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// The task that carries a channel's messages and replies. Dropping it ends the channel.
pub type ChannelTask = Task<Result<(), ChannelError>>;

/// Why a channel ended before its ends were dropped.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("the socket of the channel failed")]
    Socket(#[source] io::Error),
    /// A message was to be sent that does not fit in a packet.
    #[error("cannot send a message")]
    Send(#[from] EncodeError),
    /// The peer sent a packet that is longer than any may be.
    #[error("a received packet is too long")]
    TooLong,
    /// The peer sent more file descriptors than a packet may have, or than this process can open.
    #[error("a received packet has too many file descriptors")]
    TooManyFds,
    /// The peer sent what is not a message or reply.
    #[error("a received packet is invalid")]
    Receive(#[from] ReceiveError),
    /// The peer answered a request that does not wait for an answer.
    #[error("a reply was received to request {request_id}, which does not wait for one")]
    UnexpectedReply {
        /// The number in the reply.
        request_id: u64,
    },
    /// The peer sent more requests than may wait for replies.
    #[error(
        "the peer sent more than {} requests without waiting for replies",
        MAX_REQUESTS
    )]
    TooManyRequests,
}
