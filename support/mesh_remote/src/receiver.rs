//! The receiving end of a channel from another process.

use crate::error::ChannelError;
use crate::error::ChannelOpenError;
use crate::error::ChannelTask;
use crate::limits::MAX_REQUESTS;
use crate::limits::QUEUE_LEN;
use crate::socket::Socket;
use futures::future::Either;
use mesh::Attachments;
use mesh::BoundedSender;
use mesh::Receiver;
use mesh::wire;
use mesh::wire::Packet;
use minicbor::Decode;
use pal_async::Driver;
use rustix::net::Shutdown;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Makes a receiver of what is sent by whoever has the other end of `socket`, a connected SOCK_SEQPACKET Unix socket.
///
/// The task carries the messages, and the replies back. It ends when the peer is gone, or when the receiver is dropped
/// or the peer sends nothing more, and all requests are answered.
pub fn receiver<M>(
    driver: &Driver,
    socket: OwnedFd,
) -> Result<(Receiver<M>, ChannelTask), ChannelOpenError>
where
    M: for<'b> Decode<'b, Attachments> + Send + 'static,
{
    let socket = Socket::new(driver, socket)?;
    let (messages, receiver) = mesh::bounded(QUEUE_LEN);
    let task = driver.spawn("mesh-receiver", run(driver.clone(), socket, messages));
    Ok((receiver, task))
}

async fn run<M>(
    driver: Driver,
    socket: Socket,
    messages: BoundedSender<M>,
) -> Result<(), ChannelError>
where
    M: for<'b> Decode<'b, Attachments> + Send,
{
    let (replies, to_send) = mesh::bounded(MAX_REQUESTS);
    // Requests that were received and whose replies were not sent.
    let unanswered = Arc::new(AtomicUsize::new(0));
    let sending = pin!(send(&socket, to_send, &unanswered));
    let receiving = pin!(async {
        let ended = receive(&driver, &socket, messages, replies, &unanswered).await;
        // Otherwise the peer would wait for its packets to be read.
        socket.shutdown(Shutdown::Read);
        ended
    });
    match futures::future::select(receiving, sending).await {
        // What was received may still be answered.
        Either::Left((Ok(()), sending)) => sending.await,
        Either::Left((Err(error), _)) | Either::Right((Err(error), _)) => Err(error),
        Either::Right((Ok(()), _)) => Ok(()),
    }
}

/// Passes messages on until the peer sends nothing more, or nobody receives them.
async fn receive<M>(
    driver: &Driver,
    socket: &Socket,
    messages: BoundedSender<M>,
    replies: BoundedSender<Packet>,
    unanswered: &AtomicUsize,
) -> Result<(), ChannelError>
where
    M: for<'b> Decode<'b, Attachments>,
{
    let mut dropped = pin!(messages.closed());
    loop {
        let received = pin!(socket.receive());
        let packet = match futures::future::select(received, &mut dropped).await {
            Either::Left((packet, _)) => packet?,
            Either::Right(_) => None,
        };
        let Some(packet) = packet else {
            return Ok(());
        };
        let (message, answer) = wire::decode_message(packet)?;
        if let Some(answer) = answer {
            if unanswered.fetch_add(1, Ordering::Relaxed) == MAX_REQUESTS.get() {
                return Err(ChannelError::TooManyRequests);
            }
            let replies = replies.clone();
            let reply = async move {
                // Fails if the channel has ended: the peer is gone.
                let _ = replies.send(answer.await).await;
            };
            driver.spawn("mesh-reply", reply).detach();
        }
        if messages.send(message).await.is_err() {
            return Ok(());
        }
    }
}

/// Sends replies until the peer is gone, or there are no more.
async fn send(
    socket: &Socket,
    mut replies: Receiver<Packet>,
    unanswered: &AtomicUsize,
) -> Result<(), ChannelError> {
    while let Ok(reply) = replies.recv().await {
        if !socket.send(&reply).await? {
            break;
        }
        unanswered.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(())
}
