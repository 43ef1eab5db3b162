//! Requests: messages with a way to reply.
//!
//! ```
//! # use mesh::{channel, Rpc};
//! enum Request {
//!     Pause(Rpc<(), bool>),
//!     Save(Rpc<String, Result<u64, String>>),
//! }
//!
//! let (sender, mut receiver) = channel();
//! let server = async move {
//!     while let Ok(request) = receiver.recv().await {
//!         match request {
//!             Request::Pause(rpc) => rpc.handle_sync(|()| true),
//!             Request::Save(rpc) => {
//!                 let (path, rpc) = rpc.split();
//!                 rpc.complete(save(&path).await);
//!             }
//!         }
//!     }
//! };
//! let client = async move {
//!     assert_eq!(sender.call(Request::Pause, ()).await, Ok(true));
//!     let error = sender.call(Request::Save, "/".into()).await.unwrap().unwrap_err();
//!     assert_eq!(error, "/ is a directory");
//! };
//! # async fn save(path: &str) -> Result<u64, String> { Err(format!("{path} is a directory")) }
//! # futures::executor::block_on(futures::future::join(server, client));
//! ```

use crate::attachments::Attachments;
use crate::channel::BoundedSender;
use crate::channel::Receiver;
use crate::channel::Sender;
use crate::channel::bounded;
use crate::rpc_error::RpcError;
use crate::wire;
use futures::Stream;
use minicbor::Decode;
use minicbor::Decoder;
use minicbor::Encode;
use minicbor::Encoder;
use minicbor::decode;
use minicbor::encode;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

/// A request with input `I` that is answered with an `O`.
///
/// If it is dropped without an answer, the caller gets [`RpcError::NoReply`].
#[must_use = "a request is to be answered"]
#[derive(Debug)]
pub struct Rpc<I, O> {
    input: I,
    reply: BoundedSender<Result<O, RpcError>>,
}

impl<I, O> Rpc<I, O> {
    /// A request, and the future of its reply.
    pub fn new(input: I) -> (Self, RpcReply<O>) {
        let (sender, receiver) = bounded(NonZeroUsize::MIN);
        let rpc = Self {
            input,
            reply: sender,
        };
        (rpc, RpcReply(Some(receiver)))
    }

    /// Takes the input out, and leaves what remains to be answered.
    pub fn split(self) -> (I, Rpc<(), O>) {
        let rpc = Rpc {
            input: (),
            reply: self.reply,
        };
        (self.input, rpc)
    }

    /// Whether the caller no longer waits for the reply. Of a caller in another process this is not known.
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers with `output`. It is not an error if the caller no longer waits.
    pub fn complete(self, output: O) {
        let _ = self.reply.try_send(Ok(output));
    }

    /// Answers with what `handler` returns.
    pub fn handle_sync(self, handler: impl FnOnce(I) -> O) {
        let (input, rpc) = self.split();
        rpc.complete(handler(input));
    }
}

impl<M> Sender<M> {
    /// Sends the request `wrap` makes of an [`Rpc`], and gives the future of its reply.
    ///
    /// The request is sent by this call, whether or not the future is awaited.
    pub fn call<I, O>(&self, wrap: impl FnOnce(Rpc<I, O>) -> M, input: I) -> RpcReply<O> {
        let (rpc, reply) = Rpc::new(input);
        match self.send(wrap(rpc)) {
            Ok(()) => reply,
            Err(_) => RpcReply(None),
        }
    }
}

impl<M> BoundedSender<M> {
    /// Sends the request `wrap` makes of an [`Rpc`] once there is room, and waits for its reply.
    pub async fn call<I, O>(
        &self,
        wrap: impl FnOnce(Rpc<I, O>) -> M,
        input: I,
    ) -> Result<O, RpcError> {
        let (rpc, reply) = Rpc::new(input);
        match self.send(wrap(rpc)).await {
            Ok(()) => reply.await,
            Err(_) => Err(RpcError::Closed),
        }
    }
}

/// The future of the reply to a request.
#[must_use = "a future does nothing unless awaited"]
#[derive(Debug)]
pub struct RpcReply<O>(
    /// `None` if the request was not sent.
    Option<Receiver<Result<O, RpcError>>>,
);

impl<O> Future for RpcReply<O> {
    type Output = Result<O, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Some(receiver) => Pin::new(receiver)
                .poll_next(cx)
                .map(|reply| reply.unwrap_or(Err(RpcError::NoReply))),
            None => Poll::Ready(Err(RpcError::Closed)),
        }
    }
}

/// A request on the wire.
#[derive(Encode, Decode)]
#[cbor(map)]
struct RpcParts<I> {
    #[n(1)]
    id: u64,
    #[n(2)]
    input: I,
}

impl<C, I, O> Encode<C> for Rpc<I, O>
where
    C: AsMut<Attachments>,
    I: Encode<C>,
    O: for<'b> Decode<'b, Attachments> + Send + 'static,
{
    fn encode<W: encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let attachments = context.as_mut();
        let id = attachments.request_id;
        let reply = self.reply.clone();
        attachments.waiting.push(Box::new(move |packet| {
            let output = match packet {
                Ok(packet) => wire::decode_reply(packet)?.ok_or(RpcError::NoReply),
                Err(error) => Err(error),
            };
            // It is not an error if the caller no longer waits.
            let _ = reply.try_send(output);
            Ok(())
        }));
        let input = &self.input;
        RpcParts { id, input }.encode(encoder, context)
    }
}

impl<'b, C, I, O> Decode<'b, C> for Rpc<I, O>
where
    C: AsMut<Attachments>,
    I: Decode<'b, C>,
    O: Encode<Attachments> + Send + 'static,
{
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, decode::Error> {
        let RpcParts { id, input } = RpcParts::decode(decoder, context)?;
        let (rpc, reply) = Self::new(input);
        let answer = async move { wire::encode_reply(id, reply.await.ok()) };
        context.as_mut().answers.push(Box::pin(answer));
        Ok(rpc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::channel;
    use futures::FutureExt;
    use futures::executor::block_on;

    #[derive(Debug)]
    enum Request {
        Double(Rpc<u32, u32>),
    }

    async fn serve(mut receiver: Receiver<Request>) {
        while let Ok(request) = receiver.recv().await {
            match request {
                Request::Double(rpc) => rpc.handle_sync(|n| n * 2),
            }
        }
    }

    fn require_send(_: impl Send) {}

    #[test]
    fn requests_are_answered() {
        let (sender, receiver) = channel();
        let client = async move {
            assert_eq!(sender.call(Request::Double, 4).await, Ok(8));
        };
        block_on(futures::future::join(serve(receiver), client));
        require_send(serve(channel().1));
    }

    #[test]
    fn bounded_senders_call_too() {
        let (sender, receiver) = bounded(NonZeroUsize::MIN);
        let client = async move {
            assert_eq!(sender.call(Request::Double, 4).await, Ok(8));
        };
        block_on(futures::future::join(serve(receiver), client));

        let (sender, receiver) = bounded(NonZeroUsize::MIN);
        drop(receiver);
        assert_eq!(
            block_on(sender.call(Request::Double, 4)),
            Err(RpcError::Closed)
        );
    }

    #[test]
    fn a_dropped_request_is_an_error() {
        let (sender, mut receiver) = channel();
        let reply = sender.call(Request::Double, 1);
        drop(receiver.try_recv().unwrap());
        assert_eq!(reply.now_or_never(), Some(Err(RpcError::NoReply)));
    }

    #[test]
    fn a_request_in_the_queue_of_a_dropped_receiver_is_an_error() {
        let (sender, receiver) = channel();
        let reply = sender.call(Request::Double, 1);
        drop(receiver);
        assert_eq!(reply.now_or_never(), Some(Err(RpcError::NoReply)));
        assert_eq!(
            sender.call(Request::Double, 1).now_or_never(),
            Some(Err(RpcError::Closed))
        );
    }

    #[test]
    fn a_handler_can_tell_that_the_caller_left() {
        let (rpc, reply) = Rpc::<_, u32>::new(1);
        assert!(!rpc.is_abandoned());
        drop(reply);
        assert!(rpc.is_abandoned());
        let (input, rpc) = rpc.split();
        assert_eq!(input, 1);
        rpc.complete(2);
    }
}
