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
fn an_empty_channel_is_not_closed() {
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
fn sending_to_a_dropped_receiver_returns_the_message() {
    let (sender, receiver) = channel();
    drop(receiver);
    assert_eq!(sender.send(7), Err(SendError(7)));

    let (sender, receiver) = bounded(ONE);
    assert!(!sender.is_closed());
    assert!(sender.closed().now_or_never().is_none());
    drop(receiver);
    assert_eq!(sender.try_send(7), Err(TrySendError::Closed(7)));
    assert_eq!(block_on(sender.send(7)), Err(SendError(7)));
    assert_eq!(sender.send_blocking(7), Err(SendError(7)));
    assert!(sender.is_closed());
    assert!(sender.closed().now_or_never().is_some());
}

#[test]
fn dropping_the_receiver_drops_queued_messages() {
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
fn dropping_the_receiver_fails_a_waiting_send() {
    let (sender, receiver) = bounded(ONE);
    sender.try_send(1).unwrap();
    let mut send = Box::pin(sender.send(2));
    assert!(send.as_mut().now_or_never().is_none());
    drop(receiver);
    assert_eq!(send.now_or_never(), Some(Err(SendError(2))));
}

#[test]
fn blocking_calls_wait_for_each_other() {
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
