//! Channels from many senders to one receiver.

use futures::Stream;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

/// A channel that holds any number of messages; sending never waits.
///
/// For peers that are trusted not to flood it. Where the sender follows a guest or a socket, use
/// [`bounded`].
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = async_channel::unbounded();
    (Sender(sender), Receiver::new(receiver))
}

/// A channel that holds `capacity` messages; sending waits while it is full.
pub fn bounded<T>(capacity: NonZeroUsize) -> (BoundedSender<T>, Receiver<T>) {
    let (sender, receiver) = async_channel::bounded(capacity.get());
    (BoundedSender(sender), Receiver::new(receiver))
}

/// The receiver is gone; the message comes back.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the receiver of the channel is gone")]
pub struct SendError<T>(pub T);

/// Why a message could not be sent right now; the message comes back.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    /// The channel holds as many messages as it may.
    #[error("the channel is full")]
    Full(T),
    /// The receiver is gone.
    #[error("the receiver of the channel is gone")]
    Closed(T),
}

/// Every sender is gone, and every message they sent was received.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[error("all senders of the channel are gone")]
pub struct RecvError;

/// Why there is no message right now.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TryRecvError {
    /// None was sent yet.
    #[error("the channel is empty")]
    Empty,
    /// Every sender is gone, and every message they sent was received.
    #[error("all senders of the channel are gone")]
    Closed,
}

// Messages need not be Debug.
impl<T> std::fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SendError")
    }
}

impl<T> std::fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

/// The sending end of an unbounded channel.
pub struct Sender<T>(async_channel::Sender<T>);

impl<T> Sender<T> {
    /// Sends `message`. Messages of one sender arrive in order.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.0
            .try_send(message)
            .map_err(|error| SendError(error.into_inner()))
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the receiver is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// The sending end of a bounded channel.
pub struct BoundedSender<T>(async_channel::Sender<T>);

impl<T> BoundedSender<T> {
    /// Sends `message` once there is room. Dropping the future sends nothing.
    pub async fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.0
            .send(message)
            .await
            .map_err(|error| SendError(error.into_inner()))
    }

    /// Sends `message` if there is room.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(message).map_err(|error| match error {
            async_channel::TrySendError::Full(message) => TrySendError::Full(message),
            async_channel::TrySendError::Closed(message) => TrySendError::Closed(message),
        })
    }

    /// Sends `message` once there is room, blocking the thread; not for tasks.
    pub fn send_blocking(&self, message: T) -> Result<(), SendError<T>> {
        self.0
            .send_blocking(message)
            .map_err(|error| SendError(error.into_inner()))
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the receiver is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl<T> Clone for BoundedSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> std::fmt::Debug for BoundedSender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundedSender")
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// The receiving end of a channel. As a stream it ends when every sender is gone.
///
/// When it is dropped, the messages in it are dropped too: whoever waits for a reply to one learns
/// that none will come.
pub struct Receiver<T>(
    // Boxed because the inner receiver's stream is not Unpin, and streams that are not are a burden.
    Pin<Box<async_channel::Receiver<T>>>,
);

impl<T> Receiver<T> {
    fn new(receiver: async_channel::Receiver<T>) -> Self {
        Self(Box::pin(receiver))
    }

    /// Waits for a message. Dropping the future loses none.
    pub async fn recv(&mut self) -> Result<T, RecvError> {
        self.0.recv().await.map_err(|_closed| RecvError)
    }

    /// Takes a message if there is one.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.0.try_recv().map_err(|error| match error {
            async_channel::TryRecvError::Empty => TryRecvError::Empty,
            async_channel::TryRecvError::Closed => TryRecvError::Closed,
        })
    }

    /// Waits for a message, blocking the thread; not for tasks.
    pub fn recv_blocking(&mut self) -> Result<T, RecvError> {
        self.0.recv_blocking().map_err(|_closed| RecvError)
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.get_mut().0.as_mut().poll_next(cx)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // The queue lives as long as the senders. No message enters it once it is closed.
        self.0.close();
        while self.0.try_recv().is_ok() {}
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("queued", &self.0.len())
            .field("closed", &self.0.is_closed())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::StreamExt;
    use futures::executor::block_on;
    use std::sync::Arc;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;

    #[test]
    fn messages_arrive_in_order_then_the_end() {
        let (sender, mut receiver) = channel();
        let other = sender.clone();
        for n in 0..3 {
            sender.send(n).unwrap();
        }
        drop(sender);
        other.send(3).unwrap();
        drop(other);
        block_on(async {
            for n in 0..4 {
                assert_eq!(receiver.recv().await, Ok(n));
            }
            assert_eq!(receiver.recv().await, Err(RecvError));
        });
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(receiver.recv_blocking(), Err(RecvError));
    }

    #[test]
    fn empty_is_not_closed() {
        let (sender, mut receiver) = channel();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert!(receiver.recv().now_or_never().is_none());
        sender.send(1).unwrap();
        assert_eq!(receiver.try_recv(), Ok(1));
    }

    #[test]
    fn a_dropped_recv_loses_nothing() {
        let (sender, mut receiver) = channel();
        {
            let mut recv = Box::pin(receiver.recv());
            assert!(recv.as_mut().now_or_never().is_none());
            sender.send(1).unwrap();
        }
        assert_eq!(receiver.try_recv(), Ok(1));
    }

    #[test]
    fn sending_to_nobody_returns_the_message() {
        let (sender, receiver) = channel();
        assert!(!sender.is_closed());
        assert!(sender.closed().now_or_never().is_none());
        drop(receiver);
        assert_eq!(sender.send(7), Err(SendError(7)));
        assert!(sender.is_closed());
        assert!(sender.closed().now_or_never().is_some());

        let (sender, receiver) = bounded(ONE);
        drop(receiver);
        assert_eq!(sender.try_send(7), Err(TrySendError::Closed(7)));
        assert_eq!(block_on(sender.send(7)), Err(SendError(7)));
        assert_eq!(sender.send_blocking(7), Err(SendError(7)));
        assert!(sender.is_closed());
        assert!(sender.closed().now_or_never().is_some());
    }

    #[test]
    fn queued_messages_go_with_the_receiver() {
        let message = Arc::new(());
        let (sender, receiver) = channel();
        sender.send(message.clone()).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&message), 1);
        drop(sender);
    }

    #[test]
    fn a_full_channel_makes_senders_wait() {
        let (sender, mut receiver) = bounded(ONE);
        sender.try_send(1).unwrap();
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        let mut send = Box::pin(sender.send(2));
        assert!(send.as_mut().now_or_never().is_none());
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(send.now_or_never(), Some(Ok(())));
        assert_eq!(receiver.try_recv(), Ok(2));
    }

    #[test]
    fn a_waiting_sender_learns_that_the_receiver_left() {
        let (sender, receiver) = bounded(ONE);
        sender.try_send(1).unwrap();
        let mut send = Box::pin(sender.send(2));
        assert!(send.as_mut().now_or_never().is_none());
        drop(receiver);
        assert_eq!(send.now_or_never(), Some(Err(SendError(2))));
    }

    #[test]
    fn threads_block_on_each_other() {
        let (sender, mut receiver) = bounded(ONE);
        let thread = std::thread::spawn(move || {
            for n in 0..1000 {
                sender.send_blocking(n).unwrap();
            }
        });
        for n in 0..1000 {
            assert_eq!(receiver.recv_blocking(), Ok(n));
        }
        assert_eq!(receiver.recv_blocking(), Err(RecvError));
        thread.join().unwrap();
    }

    #[test]
    fn a_stream_ends_with_its_senders() {
        let (sender, receiver) = channel();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        drop(sender);
        assert_eq!(block_on(receiver.collect::<Vec<_>>()), [1, 2]);
    }
}
