//! A hostile process at the other end of a channel; shared by the fuzz target and a test that runs it over a few seeds.

use mesh::Attachments;
use mesh::Fd;
use mesh::Receiver;
use mesh::Rpc;
use mesh::RpcError;
use mesh_remote::MAX_REQUESTS;
use mesh_remote::socket_pair;
use minicbor::Decode;
use minicbor::Encode;
use pal_async::DefaultPool;
use pal_async::Driver;
use pal_async::PolledFd;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::Shutdown;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

/// A message of each kind.
#[derive(Debug, Encode, Decode)]
#[cbor(context_bound = "AsMut<Attachments>")]
pub(crate) enum Message {
    /// No request.
    #[n(0)]
    #[cbor(map)]
    Text(#[n(1)] String),
    /// A request with file descriptors.
    #[n(1)]
    #[cbor(map)]
    Exchange(#[n(1)] Rpc<Vec<Fd>, Option<Fd>>),
    /// A request that is dropped.
    #[n(2)]
    #[cbor(map)]
    Drop(#[n(1)] Rpc<u64, Result<u64, String>>),
}

/// What became of the packets in `data`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Messages that were received.
    pub(crate) messages: usize,
    /// Whether the receiving end was content with all of them.
    pub(crate) receiver_content: bool,
    /// Whether a request got a reply from the packets.
    pub(crate) replied: bool,
}

/// Sends `data` to a receiver, and as replies to a sender. It is packets: each a byte with the number of its file
/// descriptors (the low five bits), two bytes with its length, and its bytes.
pub(crate) fn run(data: &[u8]) -> Outcome {
    DefaultPool::run_with(async |driver| {
        let (messages, receiver_content) = receive(&driver, data).await;
        Outcome {
            messages,
            receiver_content,
            replied: reply(&driver, data).await,
        }
    })
}

async fn receive(driver: &Driver, data: &[u8]) -> (usize, bool) {
    let Ok((here, there)) = socket_pair() else {
        return (0, false);
    };
    let Ok((messages, channel)) = mesh_remote::receiver(driver, there) else {
        return (0, false);
    };
    let server = driver.spawn("server", serve(messages));
    let Ok(here) = driver.polled_fd(here) else {
        return (0, false);
    };
    send(&here, data).await;
    let count = server.await;
    (
        count.unwrap_or(usize::MAX),
        matches!(channel.await, Ok(Ok(()))),
    )
}

/// Answers requests, and gives the number of messages.
async fn serve(mut messages: Receiver<Message>) -> usize {
    let mut count = 0;
    let mut held = Vec::new();
    while let Ok(message) = messages.recv().await {
        count += 1;
        match message {
            Message::Text(_) => {}
            Message::Exchange(rpc) => rpc.handle_sync(|mut fds| fds.pop()),
            Message::Drop(rpc) => held.push(rpc),
        }
        assert!(held.len() <= MAX_REQUESTS.get());
    }
    count
}

async fn reply(driver: &Driver, data: &[u8]) -> bool {
    let Ok((here, there)) = socket_pair() else {
        return false;
    };
    let Ok((messages, channel)) = mesh_remote::sender(driver, here) else {
        return false;
    };
    let call = driver.spawn("call", async move { messages.call(Message::Drop, 5).await });
    let Ok(there) = driver.polled_fd(there) else {
        return false;
    };
    // The request is there: replies that came before it would be to none.
    let _ = there.readable().await;
    send(&there, data).await;
    let _ = channel.await;
    match call.await {
        Ok(reply) => !matches!(reply, Err(RpcError::NoReply)),
        Err(error) => panic!("{error}"),
    }
}

/// Sends the packets until there are no more, or nobody takes them; then tells that no more will come.
async fn send(socket: &PolledFd<OwnedFd>, mut data: &[u8]) {
    while let [fds, low, high, rest @ ..] = data {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (packet, rest) = rest.split_at(len);
        data = rest;
        let sent = socket.write_with(|socket| {
            let fds: Vec<BorrowedFd<'_>> = vec![socket.as_fd(); usize::from(*fds & 31)];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(31))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let bytes = [IoSlice::new(packet)];
            rustix::net::sendmsg(socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL)?;
            Ok(())
        });
        if sent.await.is_err() {
            break;
        }
    }
    let _ = rustix::net::shutdown(socket.as_ref(), Shutdown::Write);
}
