//! Channels for a single message.

use crate::RecvError;
use crate::SendError;
use crate::TryRecvError;
use futures::channel::oneshot;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

/// A channel for one message.
pub fn oneshot<T>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (OneshotSender(sender), OneshotReceiver(receiver))
}

/// The sending end of a channel for one message.
pub struct OneshotSender<T>(oneshot::Sender<T>);

impl<T> OneshotSender<T> {
    /// Sends the message.
    pub fn send(self, message: T) -> Result<(), SendError<T>> {
        self.0.send(message).map_err(SendError)
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_canceled()
    }

    /// Waits until the receiver is gone.
    pub async fn closed(&mut self) {
        self.0.cancellation().await;
    }
}

impl<T> std::fmt::Debug for OneshotSender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneshotSender")
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// The receiving end of a channel for one message: a future of it.
#[must_use = "a future does nothing unless awaited"]
pub struct OneshotReceiver<T>(oneshot::Receiver<T>);

impl<T> OneshotReceiver<T> {
    /// Takes the message if it was sent. Once taken, the channel is closed.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.0.try_recv() {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(TryRecvError::Empty),
            Err(oneshot::Canceled) => Err(TryRecvError::Closed),
        }
    }
}

impl<T> Future for OneshotReceiver<T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map_err(|oneshot::Canceled| RecvError)
    }
}

impl<T> std::fmt::Debug for OneshotReceiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneshotReceiver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn one_message() {
        let (sender, receiver) = oneshot();
        assert!(!sender.is_closed());
        sender.send(1).unwrap();
        assert_eq!(receiver.now_or_never(), Some(Ok(1)));
    }

    #[test]
    fn trying() {
        let (sender, mut receiver) = oneshot();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        sender.send(1).unwrap();
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn either_end_learns_that_the_other_left() {
        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(receiver.now_or_never(), Some(Err(RecvError)));

        let (mut sender, receiver) = oneshot();
        assert!(sender.closed().now_or_never().is_none());
        drop(receiver);
        assert!(sender.closed().now_or_never().is_some());
        assert!(sender.is_closed());
        assert_eq!(sender.send(1), Err(SendError(1)));
    }
}
