//! The sending end of a channel to another process.

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
use mesh::wire::PendingReply;
use minicbor::Encode;
use pal_async::Driver;
use parking_lot::Mutex;
use rustix::net::Shutdown;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::pin::pin;

/// Makes a sender to whoever has the other end of `socket`, a connected SOCK_SEQPACKET Unix socket.
///
/// The task carries the messages, and the replies back. It ends when the peer is gone, or when all senders are dropped
/// and the peer has answered and closed its end.
pub fn sender<M>(
    driver: &Driver,
    socket: OwnedFd,
) -> Result<(BoundedSender<M>, ChannelTask), ChannelOpenError>
where
    M: Encode<Attachments> + Send + 'static,
{
    let socket = Socket::new(driver, socket)?;
    let (sender, messages) = mesh::bounded(QUEUE_LEN);
    let task = driver.spawn("mesh-sender", run(socket, messages));
    Ok((sender, task))
}

/// The requests that wait for their replies, by their number.
type Waiting = Mutex<BTreeMap<u64, PendingReply>>;

async fn run<M>(socket: Socket, messages: Receiver<M>) -> Result<(), ChannelError>
where
    M: Encode<Attachments> + Send,
{
    let waiting = Waiting::default();
    // A message in this channel is a request for which there is room.
    let (free, slots) = mesh::bounded(MAX_REQUESTS);
    for _ in 0..MAX_REQUESTS.get() {
        let _ = free.try_send(());
    }
    let sending = pin!(send(&socket, messages, slots, &waiting));
    let receiving = pin!(receive(&socket, &free, &waiting));
    match futures::future::select(sending, receiving).await {
        // The replies to what was sent may still come.
        Either::Left((Ok(()), receiving)) => receiving.await,
        Either::Left((Err(error), _)) | Either::Right((Err(error), _)) => Err(error),
        Either::Right((Ok(()), _)) => Ok(()),
    }
}

/// Sends messages until there are no more senders.
async fn send<M: Encode<Attachments>>(
    socket: &Socket,
    mut messages: Receiver<M>,
    mut slots: Receiver<()>,
    waiting: &Waiting,
) -> Result<(), ChannelError> {
    let mut request_id = 0;
    let mut has_slot = false;
    while let Ok(message) = messages.recv().await {
        if !has_slot {
            // Cannot fail: `run` has a sender.
            has_slot = slots.recv().await.is_ok();
        }
        let packet = match wire::encode_message(&message, request_id) {
            Ok((packet, None)) => packet,
            Ok((packet, Some(reply))) => {
                waiting.lock().insert(request_id, reply);
                request_id += 1;
                has_slot = false;
                packet
            }
            Err(refused) => match refused.request {
                Some(request) => {
                    request.refuse(refused.error);
                    continue;
                }
                None => return Err(refused.error.into()),
            },
        };
        if !socket.send(&packet).await? {
            return Ok(());
        }
    }
    socket.shutdown(Shutdown::Write);
    Ok(())
}

/// Passes replies on until the peer closes its end.
async fn receive(
    socket: &Socket,
    free: &BoundedSender<()>,
    waiting: &Waiting,
) -> Result<(), ChannelError> {
    while let Some(packet) = socket.receive().await? {
        let request_id = wire::reply_request_id(&packet)?;
        let reply = waiting.lock().remove(&request_id);
        let reply = reply.ok_or(ChannelError::UnexpectedReply { request_id })?;
        reply.complete(packet)?;
        // There is room: this request had its slot.
        let _ = free.try_send(());
    }
    Ok(())
}
