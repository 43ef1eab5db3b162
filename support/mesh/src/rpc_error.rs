//! Why a request has no reply.

use crate::packet::EncodeError;

/// Why a request has no reply.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The receiver was gone; nobody saw the request.
    #[error("the request was not sent: its receiver is gone")]
    Closed,
    /// The receiver is another process, and the request does not fit in a packet.
    #[error("the request was not sent")]
    Refused(#[source] EncodeError),
    /// The request was sent, and dropped without an answer. It may have had effects.
    #[error("the request was dropped without a reply")]
    NoReply,
}
