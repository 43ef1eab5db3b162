//! Messages as packets, for those who carry them to another process.
//!
//! A packet is bytes and file descriptors. A message is one packet towards its receiver; if it carries an
//! [`Rpc`](crate::Rpc), the reply is one packet back. What is received may come from a hostile process: all of it is
//! checked, and nothing that is announced is believed before it is there.

use crate::attachments::Attachments;
use crate::attachments::OnReply;
use crate::decode_error::DecodeError;
pub use crate::packet::Answer;
pub use crate::packet::EncodeError;
pub use crate::packet::MAX_BYTES;
pub use crate::packet::MAX_FDS;
pub use crate::packet::Packet;
pub use crate::packet::ReceiveError;
use crate::payload;
use crate::rpc_error::RpcError;
use crate::wellformed;
use minicbor::Decode;
use minicbor::Encode;

/// A message that cannot be sent.
pub struct Refused {
    /// Why.
    pub error: EncodeError,
    /// The request in it, whose caller is to be told.
    pub request: Option<PendingReply>,
}

/// The reply that a sent request waits for. Dropping it tells the caller that there will be none.
pub struct PendingReply(OnReply);

impl PendingReply {
    /// Passes the reply on to the caller.
    pub fn complete(self, reply: Packet) -> Result<(), ReceiveError> {
        (self.0)(Ok(reply))
    }

    /// Tells the caller that the request was not sent.
    pub fn refuse(self, error: EncodeError) {
        // Fails only for a reply that does not decode.
        let _ = (self.0)(Err(RpcError::Refused(error)));
    }
}

/// Encodes a message. If it carries a request, that gets the number `request_id`, and the reply is to be passed to what
/// is returned with the packet.
pub fn encode_message<M: Encode<Attachments>>(
    message: &M,
    request_id: u64,
) -> Result<(Packet, Option<PendingReply>), Refused> {
    let mut attachments = Attachments::for_request(request_id);
    let bytes = payload::encode_with(message, &mut attachments);
    let count = attachments.waiting.len();
    let request = attachments.waiting.pop().map(PendingReply);
    let packet = checked(Packet {
        bytes,
        fds: attachments.take_fds(),
    });
    match packet {
        Ok(packet) if count <= 1 => Ok((packet, request)),
        Ok(_) => Err(Refused {
            error: EncodeError::SeveralRequests { count },
            request,
        }),
        Err(error) => Err(Refused { error, request }),
    }
}

fn checked(packet: Packet) -> Result<Packet, EncodeError> {
    let (len, count) = (packet.bytes.len(), packet.fds.len());
    if len > MAX_BYTES {
        Err(EncodeError::TooLong { len })
    } else if count > MAX_FDS {
        Err(EncodeError::TooManyFds { count })
    } else if wellformed::item_len(&packet.bytes) == Err(DecodeError::TooDeep) {
        Err(EncodeError::TooDeep)
    } else {
        Ok(packet)
    }
}

/// Decodes a message. If it carries a request, the future of the packet with the reply comes with it.
pub fn decode_message<M>(packet: Packet) -> Result<(M, Option<Answer>), ReceiveError>
where
    M: for<'b> Decode<'b, Attachments>,
{
    let (message, mut answers) = decode_packet(packet)?;
    match answers.len() {
        0 | 1 => Ok((message, answers.pop())),
        count => Err(ReceiveError::SeveralRequests { count }),
    }
}

fn decode_packet<M>(packet: Packet) -> Result<(M, Vec<Answer>), ReceiveError>
where
    M: for<'b> Decode<'b, Attachments>,
{
    let mut attachments = Attachments::received(packet.fds);
    let message = payload::decode_with(&packet.bytes, &mut attachments)?;
    match attachments.take_fds().len() {
        0 => Ok((message, attachments.answers)),
        count => Err(ReceiveError::UnexpectedFds { count }),
    }
}

/// A reply as far as it says which request it answers.
#[derive(Decode)]
#[cbor(map)]
struct ReplyHead {
    #[n(1)]
    request_id: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Reply<O> {
    #[n(1)]
    request_id: u64,
    /// Absent if the request was dropped without an answer.
    #[n(2)]
    answer: Option<ReplyAnswer<O>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ReplyAnswer<O> {
    #[n(1)]
    output: O,
}

/// The number of the request that a reply answers.
pub fn reply_request_id(reply: &Packet) -> Result<u64, ReceiveError> {
    let head: ReplyHead = payload::decode(&reply.bytes)?;
    Ok(head.request_id)
}

/// The packet with the reply to the request with this number. A reply that does not fit in a packet, that nests too
/// deep, or that itself carries a request, becomes none.
pub(crate) fn encode_reply<O: Encode<Attachments>>(request_id: u64, output: Option<O>) -> Packet {
    let reply = Reply {
        request_id,
        answer: output.map(|output| ReplyAnswer { output }),
    };
    match encode_message(&reply, 0) {
        Ok((packet, None)) => packet,
        Ok((_, Some(_))) | Err(_) => Packet {
            bytes: payload::encode(&Reply::<()> {
                request_id,
                answer: None,
            }),
            fds: Vec::new(),
        },
    }
}

/// The answer in a reply, or none if the request was dropped without one.
pub(crate) fn decode_reply<O>(reply: Packet) -> Result<Option<O>, ReceiveError>
where
    O: for<'b> Decode<'b, Attachments>,
{
    let (reply, answers) = decode_packet::<Reply<O>>(reply)?;
    match answers.len() {
        0 => Ok(reply.answer.map(|answer| answer.output)),
        count => Err(ReceiveError::SeveralRequests { count }),
    }
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
