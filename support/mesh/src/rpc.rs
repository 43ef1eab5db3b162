//! Requests that are messages with a way to reply.
//!
//! ```
//! # use mesh::{channel, FailableRpc, Rpc};
//! enum Request {
//!     Pause(Rpc<(), bool>),
//!     Save(FailableRpc<String, u64>),
//! }
//!
//! let (sender, mut receiver) = channel();
//! let server = async move {
//!     while let Ok(request) = receiver.recv().await {
//!         match request {
//!             Request::Pause(rpc) => rpc.handle_sync(|()| true),
//!             Request::Save(rpc) => rpc.handle_failable(async |path| save(&path).await).await,
//!         }
//!     }
//! };
//! let client = async move {
//!     assert_eq!(sender.call(Request::Pause, ()).await, Ok(true));
//!     let error = sender.call_failable(Request::Save, "/".into()).await.unwrap_err();
//!     assert_eq!(error.to_string(), "/ is a directory");
//! };
//! # async fn save(path: &str) -> Result<u64, String> { Err(format!("{path} is a directory")) }
//! # futures::executor::block_on(futures::future::join(server, client));
//! ```

use crate::BoundedSender;
use crate::OneshotReceiver;
use crate::OneshotSender;
use crate::Sender;
use crate::oneshot;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

/// A request with input `I` that is answered with an `O`.
///
/// Dropped without an answer, it tells the caller so ([`RpcError::NoReply`]).
#[must_use = "a request is to be answered"]
#[derive(Debug)]
pub struct Rpc<I, O> {
    input: I,
    reply: OneshotSender<O>,
}

/// A request that may fail.
pub type FailableRpc<I, O> = Rpc<I, Result<O, RemoteError>>;

impl<I, O> Rpc<I, O> {
    /// A request, and the future of its reply.
    pub fn new(input: I) -> (Self, RpcReply<O>) {
        let (sender, receiver) = oneshot();
        let reply = RpcReply(ReplyState::Waiting(receiver));
        (
            Self {
                input,
                reply: sender,
            },
            reply,
        )
    }

    /// What is asked.
    pub fn input(&self) -> &I {
        &self.input
    }

    /// Takes the input out, and leaves what remains to be answered.
    pub fn split(self) -> (I, Rpc<(), O>) {
        let rpc = Rpc {
            input: (),
            reply: self.reply,
        };
        (self.input, rpc)
    }

    /// Whether the caller no longer waits for the reply.
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers with `output`. A caller that no longer waits is no error.
    pub fn complete(self, output: O) {
        let _ = self.reply.send(output);
    }

    /// Answers with what `handler` returns.
    pub async fn handle(self, handler: impl AsyncFnOnce(I) -> O) {
        let (input, rpc) = self.split();
        rpc.complete(handler(input).await);
    }

    /// Answers with what `handler` returns.
    pub fn handle_sync(self, handler: impl FnOnce(I) -> O) {
        let (input, rpc) = self.split();
        rpc.complete(handler(input));
    }
}

impl<I, O> FailableRpc<I, O> {
    /// Answers with an error.
    pub fn fail(self, error: impl Into<Box<dyn Error + Send + Sync>>) {
        self.complete(Err(RemoteError::new(error)));
    }

    /// Answers with what `handler` returns.
    pub async fn handle_failable<E>(self, handler: impl AsyncFnOnce(I) -> Result<O, E>)
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let (input, rpc) = self.split();
        rpc.complete(handler(input).await.map_err(RemoteError::new));
    }

    /// Answers with what `handler` returns.
    pub fn handle_failable_sync<E>(self, handler: impl FnOnce(I) -> Result<O, E>)
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let (input, rpc) = self.split();
        rpc.complete(handler(input).map_err(RemoteError::new));
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
            Err(_) => RpcReply(ReplyState::NotSent),
        }
    }

    /// As [`Sender::call`], for a request that may fail.
    pub fn call_failable<I, O>(
        &self,
        wrap: impl FnOnce(FailableRpc<I, O>) -> M,
        input: I,
    ) -> FailableReply<O> {
        FailableReply(self.call(wrap, input))
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

    /// As [`BoundedSender::call`], for a request that may fail.
    pub async fn call_failable<I, O>(
        &self,
        wrap: impl FnOnce(FailableRpc<I, O>) -> M,
        input: I,
    ) -> Result<O, FailableRpcError> {
        Ok(self.call(wrap, input).await??)
    }
}

/// Why a request has no reply.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The receiver was gone; nobody saw the request.
    #[error("the request was not sent: its receiver is gone")]
    Closed,
    /// The request was sent, and dropped without an answer. It may have had effects.
    #[error("the request was dropped without a reply")]
    NoReply,
}

/// Why a request that may fail has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FailableRpcError {
    /// The request was not answered.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The request was answered with an error.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// An error that the handler of a request answered with, its sources included.
#[derive(Clone)]
pub struct RemoteError(Arc<dyn Error + Send + Sync>);

impl RemoteError {
    /// Takes any error, or a text.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into().into())
    }

    /// The error as the type the handler returned, if that is `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl std::fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for RemoteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// The reply to a request, once it is there.
#[must_use = "a future does nothing unless awaited"]
#[derive(Debug)]
pub struct RpcReply<O>(ReplyState<O>);

#[derive(Debug)]
enum ReplyState<O> {
    Waiting(OneshotReceiver<O>),
    NotSent,
}

impl<O> Future for RpcReply<O> {
    type Output = Result<O, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            ReplyState::Waiting(receiver) => Pin::new(receiver)
                .poll(cx)
                .map_err(|_closed| RpcError::NoReply),
            ReplyState::NotSent => Poll::Ready(Err(RpcError::Closed)),
        }
    }
}

/// The reply to a request that may fail, once it is there.
#[must_use = "a future does nothing unless awaited"]
#[derive(Debug)]
pub struct FailableReply<O>(RpcReply<Result<O, RemoteError>>);

impl<O> Future for FailableReply<O> {
    type Output = Result<O, FailableRpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|reply| Ok(reply??))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Receiver;
    use crate::bounded;
    use crate::channel;
    use futures::FutureExt;
    use futures::executor::block_on;
    use std::num::NonZeroUsize;

    #[derive(Debug)]
    enum Request {
        Double(Rpc<u32, u32>),
        Parse(FailableRpc<String, u32>),
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot parse {text}")]
    struct ParseError {
        text: String,
        source: std::num::ParseIntError,
    }

    fn parse(text: String) -> Result<u32, ParseError> {
        text.parse().map_err(|source| ParseError { text, source })
    }

    async fn serve(mut receiver: Receiver<Request>) {
        while let Ok(request) = receiver.recv().await {
            match request {
                Request::Double(rpc) => rpc.handle(async |n| n * 2).await,
                Request::Parse(rpc) => rpc.handle_failable(async |text| parse(text)).await,
            }
        }
    }

    fn require_send(_: impl Send) {}

    #[test]
    fn requests_are_answered() {
        let (sender, receiver) = channel();
        let client = async move {
            assert_eq!(sender.call(Request::Double, 4).await, Ok(8));
            let parsed = sender.call_failable(Request::Parse, "12".into()).await;
            assert_eq!(parsed.unwrap(), 12);
        };
        block_on(futures::future::join(serve(receiver), client));
        require_send(serve(channel().1));
    }

    #[test]
    fn bounded_senders_call_too() {
        let (sender, receiver) = bounded(NonZeroUsize::MIN);
        let client = async move {
            assert_eq!(sender.call(Request::Double, 4).await, Ok(8));
            let parsed = sender.call_failable(Request::Parse, "x".into()).await;
            assert!(matches!(parsed, Err(FailableRpcError::Remote(_))));
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
    fn an_error_arrives_with_its_type_and_its_sources() {
        let (rpc, reply) = FailableRpc::new("x".to_owned());
        rpc.handle_failable_sync(parse);
        let FailableRpcError::Remote(error) =
            FailableReply(reply).now_or_never().unwrap().unwrap_err()
        else {
            panic!("not remote");
        };
        assert_eq!(error.to_string(), "cannot parse x");
        assert_eq!(
            error.source().unwrap().to_string(),
            "invalid digit found in string"
        );
        assert!(error.downcast_ref::<ParseError>().is_some());
    }

    #[test]
    fn a_text_will_do_as_an_error() {
        let (rpc, reply) = FailableRpc::<_, ()>::new(());
        rpc.fail("no such thing");
        let error = reply.now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "no such thing");
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
        assert!(matches!(
            sender
                .call_failable(Request::Parse, String::new())
                .now_or_never(),
            Some(Err(FailableRpcError::Rpc(RpcError::Closed)))
        ));
    }

    #[test]
    fn a_handler_dropped_midway_is_an_error() {
        let (rpc, reply) = Rpc::<_, u32>::new(1);
        let mut handler = Box::pin(rpc.handle(async |_n| futures::future::pending().await));
        assert!(handler.as_mut().now_or_never().is_none());
        drop(handler);
        assert_eq!(reply.now_or_never(), Some(Err(RpcError::NoReply)));
    }

    #[test]
    fn a_handler_can_tell_that_the_caller_left() {
        let (rpc, reply) = Rpc::<_, u32>::new(1);
        assert!(!rpc.is_abandoned());
        drop(reply);
        assert!(rpc.is_abandoned());
        assert_eq!(*rpc.input(), 1);
        rpc.complete(2);
    }
}
