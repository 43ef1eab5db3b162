//! Channels from many senders to one receiver.

use futures::Stream;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

/// A channel that holds any number of messages; sending never waits.
///
/// For senders that are trusted not to flood it. Where a guest or a socket determines how much is sent, use
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
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("closed", &self.0.is_closed())
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
/// Dropping it drops the messages in it, so that whoever waits for a reply to one gets an error.
pub struct Receiver<T>(
    // Boxed because the inner receiver is not Unpin, which a stream has to be to be polled without pinning it.
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
        // The queue lives as long as the senders. No message enters it after it is closed.
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
#[path = "channel_test.rs"]
mod tests;
