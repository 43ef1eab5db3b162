//! What a message carries that is not bytes: file descriptors, and where its request is answered.

use crate::packet::Answer;
use crate::packet::Fd;
use crate::packet::Packet;
use crate::packet::ReceiveError;
use crate::rpc_error::RpcError;
use minicbor::Decode;
use minicbor::Decoder;
use minicbor::Encode;
use minicbor::Encoder;
use minicbor::decode;
use minicbor::encode;

/// What a message carries that is not bytes: the context of encoding and decoding it.
///
/// A type with an [`Fd`] or an [`Rpc`](crate::Rpc) in it derives its encoding with this context:
///
/// ```
/// use mesh::{Attachments, Fd, Rpc};
/// use minicbor::{Decode, Encode};
///
/// #[derive(Encode, Decode)]
/// #[cbor(context_bound = "AsMut<Attachments>")]
/// enum Request {
///     #[n(0)]
///     #[cbor(map)]
///     MapMemory(#[n(1)] Rpc<Fd, bool>),
/// }
/// ```
///
/// Such a type cannot be saved state: [`payload::encode`](crate::payload::encode) does not take it.
#[derive(Default)]
pub struct Attachments {
    /// While decoding, each is taken once.
    fds: Vec<Option<Fd>>,
    /// The request's number while encoding.
    pub(crate) request_id: u64,
    /// The replies that an encoded message waits for.
    pub(crate) waiting: Vec<OnReply>,
    /// The replies to the requests in a decoded message.
    pub(crate) answers: Vec<Answer>,
}

/// Takes the packet with the reply to a request, or the reason why there is none.
pub(crate) type OnReply =
    Box<dyn FnOnce(Result<Packet, RpcError>) -> Result<(), ReceiveError> + Send>;

impl AsMut<Attachments> for Attachments {
    fn as_mut(&mut self) -> &mut Attachments {
        self
    }
}

impl Attachments {
    /// To encode a message, whose request gets this number.
    pub(crate) fn for_request(request_id: u64) -> Self {
        Self {
            request_id,
            ..Self::default()
        }
    }

    /// To decode a message that came with these file descriptors.
    pub(crate) fn received(fds: Vec<Fd>) -> Self {
        Self {
            fds: fds.into_iter().map(Some).collect(),
            ..Self::default()
        }
    }

    /// The file descriptors that no field took, or that the fields of an encoded message put here.
    pub(crate) fn take_fds(&mut self) -> Vec<Fd> {
        self.fds.drain(..).flatten().collect()
    }
}

/// On the wire it is the index of the descriptor among those of the message.
impl<C: AsMut<Attachments>> Encode<C> for Fd {
    fn encode<W: encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let fds = &mut context.as_mut().fds;
        encoder.u64(fds.len() as u64)?;
        fds.push(Some(self.clone()));
        Ok(())
    }
}

impl<'b, C: AsMut<Attachments>> Decode<'b, C> for Fd {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, decode::Error> {
        let index = decoder.u32()? as usize;
        let slot = context.as_mut().fds.get_mut(index);
        slot.and_then(Option::take).ok_or_else(|| {
            decode::Error::message(format_args!(
                "the message has no file descriptor {index}, or uses it twice"
            ))
        })
    }
}
