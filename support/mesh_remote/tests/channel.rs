//! Both ends of a channel in one process, and peers that break the protocol.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use futures::FutureExt;
use mesh::Attachments;
use mesh::BoundedSender;
use mesh::Fd;
use mesh::Receiver;
use mesh::RecvError;
use mesh::Rpc;
use mesh::RpcError;
use mesh::payload;
use mesh::payload::DecodeError;
use mesh::wire::EncodeError;
use mesh::wire::MAX_BYTES;
use mesh::wire::MAX_FDS;
use mesh::wire::ReceiveError;
use mesh_remote::ChannelError;
use mesh_remote::ChannelOpenError;
use mesh_remote::ChannelTask;
use mesh_remote::MAX_REQUESTS;
use mesh_remote::QUEUE_LEN;
use mesh_remote::receiver;
use mesh_remote::sender;
use mesh_remote::socket_pair;
use minicbor::Decode;
use minicbor::Encode;
use pal_async::DefaultPool;
use pal_async::Driver;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::io::FdFlags;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use std::io::IoSlice;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

#[derive(Debug, Encode, Decode)]
#[cbor(context_bound = "AsMut<Attachments>")]
enum Message {
    #[n(0)]
    #[cbor(map)]
    Number(#[n(1)] u64),
    #[n(1)]
    #[cbor(map)]
    Double(#[n(1)] Rpc<u64, u64>),
    #[n(2)]
    #[cbor(map)]
    Text(#[n(1)] String),
    #[n(3)]
    #[cbor(map)]
    Exchange(#[n(1)] Rpc<Fd, Fd>),
    #[n(4)]
    #[cbor(map)]
    Measure(#[n(1)] Rpc<String, u64>),
}

fn memfd(content: &[u8]) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&fd, content).unwrap();
    fd
}

fn content(fd: impl AsFd) -> Vec<u8> {
    let mut buffer = vec![0; 16];
    let len = rustix::io::pread(fd, &mut buffer, 0).unwrap();
    buffer.truncate(len);
    buffer
}

/// Answers requests, and gives the other messages' numbers at the end.
async fn serve(mut messages: Receiver<Message>) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Ok(message) = messages.recv().await {
        match message {
            Message::Number(number) => numbers.push(number),
            Message::Double(rpc) => rpc.handle_sync(|number| number * 2),
            Message::Exchange(rpc) => rpc.handle_sync(|fd| {
                let flags = rustix::io::fcntl_getfd(&fd).unwrap();
                assert!(flags.contains(FdFlags::CLOEXEC));
                memfd(&content(fd.into_owned().unwrap()).repeat(2)).into()
            }),
            Message::Measure(rpc) => rpc.handle_sync(|text| text.len() as u64),
            Message::Text(_) => {}
        }
    }
    numbers
}

/// Both ends of a new channel, each with its task.
fn connected(
    driver: &Driver,
) -> (
    (BoundedSender<Message>, ChannelTask),
    (Receiver<Message>, ChannelTask),
) {
    let (here, there) = socket_pair().unwrap();
    (
        sender(driver, here).unwrap(),
        receiver(driver, there).unwrap(),
    )
}

#[test]
fn messages_requests_and_fds_arrive_in_order() {
    DefaultPool::run_with(async |driver| {
        let ((messages, sending), (received, receiving)) = connected(&driver);
        let server = driver.spawn("server", serve(received));
        for number in 0..1000 {
            messages.send(Message::Number(number)).await.unwrap();
        }
        assert_eq!(messages.call(Message::Double, 4).await, Ok(8));
        let fd = messages.call(Message::Exchange, memfd(b"fd").into()).await;
        assert_eq!(content(fd.unwrap()), b"fdfd");
        // More requests at a time than may wait.
        let calls = (0..3 * MAX_REQUESTS.get() as u64).map(|n| messages.call(Message::Double, n));
        let doubled = futures::future::join_all(calls).await;
        assert!(
            doubled
                .iter()
                .zip(0..)
                .all(|(reply, n)| *reply == Ok(2 * n))
        );
        drop(messages);
        assert_eq!(server.await.unwrap(), Vec::from_iter(0..1000));
        sending.await.unwrap().unwrap();
        receiving.await.unwrap().unwrap();
    });
}

#[test]
fn an_end_of_another_channel_can_be_sent() {
    DefaultPool::run_with(async |driver| {
        let ((outer, _sending), (mut received, _receiving)) = connected(&driver);
        let (near, far) = socket_pair().unwrap();
        let (inner, _inner_sending) = sender(&driver, near).unwrap();
        let call = outer.call(Message::Exchange, far.into());
        let answer = async {
            let Ok(Message::Exchange(rpc)) = received.recv().await else {
                panic!("not the message");
            };
            let (far, rpc) = rpc.split();
            let far = far.into_owned().unwrap();
            let (inner_received, _receiving) = receiver(&driver, far).unwrap();
            rpc.complete(memfd(b"").into());
            serve(inner_received).await
        };
        let asking = async {
            call.await.unwrap();
            assert_eq!(inner.call(Message::Double, 3).await, Ok(6));
            drop(inner);
        };
        futures::future::join(answer, asking).await;
    });
}

#[test]
fn either_end_learns_that_the_other_is_dropped() {
    DefaultPool::run_with(async |driver| {
        let ((messages, sending), (received, receiving)) = connected(&driver);
        drop(received);
        messages.closed().await;
        assert_eq!(
            messages.call(Message::Double, 1).await,
            Err(RpcError::Closed)
        );
        sending.await.unwrap().unwrap();
        receiving.await.unwrap().unwrap();
    });
}

#[test]
fn requests_that_were_sent_are_answered_after_the_sender_is_dropped() {
    DefaultPool::run_with(async |driver| {
        let ((messages, _sending), (mut received, _receiving)) = connected(&driver);
        let (rpc, reply) = Rpc::new(1);
        messages.send(Message::Double(rpc)).await.unwrap();
        drop(messages);
        let Ok(Message::Double(rpc)) = received.recv().await else {
            panic!("not the message");
        };
        assert!(matches!(received.recv().await, Err(RecvError)));
        drop(received);
        rpc.complete(2);
        assert_eq!(reply.await, Ok(2));
    });
}

#[test]
fn a_receiver_that_is_dropped_takes_no_more_but_still_answers() {
    DefaultPool::run_with(async |driver| {
        let ((messages, _sending), (mut received, _receiving)) = connected(&driver);
        let (rpc, reply) = Rpc::new(1);
        messages.send(Message::Double(rpc)).await.unwrap();
        let Ok(Message::Double(rpc)) = received.recv().await else {
            panic!("not the message");
        };
        drop(received);
        while messages.send(Message::Number(1)).await.is_ok() {}
        rpc.complete(2);
        assert_eq!(reply.await, Ok(2));
    });
}

#[test]
fn a_peer_that_closes_with_unread_packets_is_the_end() {
    DefaultPool::run_with(async |driver| {
        let (here, there) = socket_pair().unwrap();
        let (messages, sending) = sender(&driver, here).unwrap();
        messages.send(Message::Number(1)).await.unwrap();
        let there = driver.polled_fd(there).unwrap();
        there.readable().await.unwrap();
        drop(there);
        sending.await.unwrap().unwrap();
    });
}

#[test]
fn a_sender_waits_while_too_many_requests_have_no_reply() {
    DefaultPool::run_with(async |driver| {
        let ((messages, _sending), (mut received, _receiving)) = connected(&driver);
        let calls = (0..=MAX_REQUESTS.get() as u64).map(|n| messages.call(Message::Double, n));
        let answer = async {
            let mut held = Vec::new();
            for _ in 0..MAX_REQUESTS.get() {
                held.push(received.recv().await.unwrap());
            }
            // Time for one more, which would be refused.
            driver.sleep(Duration::from_millis(20)).await;
            for message in held {
                if let Message::Double(rpc) = message {
                    rpc.handle_sync(|number| 2 * number);
                }
            }
            let last = received.recv().await;
            assert!(matches!(last, Ok(Message::Double(_))));
        };
        futures::future::join(futures::future::join_all(calls), answer).await;
    });
}

#[test]
fn a_receiver_that_does_not_keep_up_makes_the_sender_wait() {
    DefaultPool::run_with(async |driver| {
        let ((messages, _sending), (received, _receiving)) = connected(&driver);
        let text = "x".repeat(MAX_BYTES / 2);
        let mut sent = 0;
        loop {
            driver.sleep(Duration::from_millis(5)).await;
            match messages.send(Message::Text(text.clone())).now_or_never() {
                Some(result) => result.unwrap(),
                None => break,
            }
            sent += 1;
            // Both queues, and what a socket holds.
            assert!(sent < 2 * QUEUE_LEN.get() + 30, "nothing bounds what waits");
        }
        let server = driver.spawn("server", serve(received));
        assert_eq!(messages.call(Message::Double, 1).await, Ok(2));
        drop(messages);
        server.await.unwrap();
    });
}

#[test]
fn a_request_that_is_too_long_fails_and_the_channel_goes_on() {
    DefaultPool::run_with(async |driver| {
        let ((messages, sending), (received, _receiving)) = connected(&driver);
        let server = driver.spawn("server", serve(received));
        let long = messages.call(Message::Measure, "x".repeat(MAX_BYTES)).await;
        assert!(matches!(
            long,
            Err(RpcError::Refused(EncodeError::TooLong { .. }))
        ));
        let short = messages
            .call(Message::Measure, "x".repeat(MAX_BYTES - 100))
            .await;
        assert_eq!(short, Ok(MAX_BYTES as u64 - 100));
        // A message whose loss nobody would notice ends the channel.
        messages
            .send(Message::Text("x".repeat(MAX_BYTES)))
            .await
            .unwrap();
        let error = sending.await.unwrap().unwrap_err();
        assert!(matches!(
            error,
            ChannelError::Send(EncodeError::TooLong { .. })
        ));
        assert!(messages.send(Message::Number(1)).await.is_err());
        server.await.unwrap();
    });
}

#[test]
fn the_ends_of_a_socket_pair_are_closed_on_exec() {
    let (here, there) = socket_pair().unwrap();
    for fd in [here, there] {
        let flags = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(flags.contains(FdFlags::CLOEXEC));
    }
}

#[test]
fn only_seqpacket_sockets_are_taken() {
    DefaultPool::run_with(async |driver| {
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let (pipe, _) = std::io::pipe().unwrap();
        for fd in [stream.into(), pipe.into()] {
            let error = sender::<Message>(&driver, fd).unwrap_err();
            assert!(matches!(error, ChannelOpenError::NotSeqPacket));
        }
    });
}

/// Sends a packet that no channel would send.
fn send_raw(socket: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = [IoSlice::new(bytes)];
    rustix::net::sendmsg(socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

fn number(number: u64) -> Vec<u8> {
    // [0, {1: number}]
    [&[0x82, 0, 0xa1, 1][..], &payload::encode(&number)].concat()
}

/// A request to double a number.
fn double(id: u64) -> Vec<u8> {
    // [1, {1: {1: id, 2: 5}}]
    [
        &[0x82, 1, 0xa1, 1, 0xa2, 1][..],
        &payload::encode(&id),
        &[2, 5],
    ]
    .concat()
}

/// What a receiver makes of a peer that sends these packets after a good one.
async fn receive_from_hostile(driver: &Driver, packets: &[(Vec<u8>, usize)]) -> ChannelError {
    let (here, there) = socket_pair().unwrap();
    let (mut received, receiving) = receiver::<Message>(driver, there).unwrap();
    send_raw(&here, &number(7), &[]);
    assert!(matches!(received.recv().await, Ok(Message::Number(7))));
    let (mut reader, writer) = std::io::pipe().unwrap();
    for (bytes, fds) in packets {
        let fds: Vec<_> = (0..*fds)
            .map(|_| writer.as_fd().try_clone_to_owned().unwrap())
            .collect();
        send_raw(&here, bytes, &fds);
    }
    drop(writer);
    let error = receiving.await.unwrap().unwrap_err();
    while received.recv().await.is_ok() {}
    // All that came is closed, and so is the socket.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    let sent = rustix::net::send(&here, &number(1), SendFlags::NOSIGNAL);
    assert_eq!(sent, Err(Errno::PIPE));
    error
}

#[test]
fn a_receiver_refuses_what_is_not_a_message() {
    DefaultPool::run_with(async |driver| {
        let malformed = async |bytes: &[u8]| {
            let error = receive_from_hostile(&driver, &[(bytes.to_vec(), 0)]).await;
            let ChannelError::Receive(ReceiveError::Decode(error)) = error else {
                panic!("{error:?}");
            };
            error
        };
        assert!(matches!(
            malformed(b"\xffgarbage").await,
            DecodeError::Malformed(_)
        ));
        assert!(matches!(
            malformed(&[0x82, 9, 0xa0]).await,
            DecodeError::Malformed(_)
        ));
        assert_eq!(malformed(&[0x82, 0]).await, DecodeError::Truncated);
        // A text of 2^63 bytes.
        let huge = [0x82, 2, 0xa1, 1, 0x7b, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(malformed(&huge).await, DecodeError::Truncated);
        assert_eq!(
            malformed(&[&number(1)[..], &[0]].concat()).await,
            DecodeError::TrailingBytes { count: 1 }
        );
        assert!(matches!(
            malformed(&[0x81; 1000]).await,
            DecodeError::TooDeep
        ));

        let long = vec![0x82; MAX_BYTES + 1];
        let error = receive_from_hostile(&driver, &[(long, 0)]).await;
        assert!(matches!(error, ChannelError::TooLong), "{error:?}");
    });
}

#[test]
fn fds_that_are_not_asked_for_are_refused_and_closed() {
    DefaultPool::run_with(async |driver| {
        let error = receive_from_hostile(&driver, &[(number(1), 3)]).await;
        assert!(
            matches!(
                error,
                ChannelError::Receive(ReceiveError::UnexpectedFds { count: 3 })
            ),
            "{error:?}"
        );
        let error = receive_from_hostile(&driver, &[(number(1), MAX_FDS + 1)]).await;
        assert!(matches!(error, ChannelError::TooManyFds), "{error:?}");
        // [3, {1: {1: 0, 2: 0}}] wants one, and there is none.
        let none = vec![0x82, 3, 0xa1, 1, 0xa2, 1, 0, 2, 0];
        let error = receive_from_hostile(&driver, &[(none, 0)]).await;
        assert!(
            matches!(error, ChannelError::Receive(ReceiveError::Decode(_))),
            "{error:?}"
        );
    });
}

#[test]
fn a_flood_of_requests_is_refused() {
    DefaultPool::run_with(async |driver| {
        let (here, there) = socket_pair().unwrap();
        let (mut received, receiving) = receiver::<Message>(&driver, there).unwrap();
        let mut held = Vec::new();
        for id in 0..MAX_REQUESTS.get() as u64 {
            send_raw(&here, &double(id), &[]);
            held.push(received.recv().await.unwrap());
        }
        send_raw(&here, &double(0), &[]);
        let error = receiving.await.unwrap().unwrap_err();
        assert!(matches!(error, ChannelError::TooManyRequests), "{error:?}");
        assert!(received.recv().await.is_err());
    });
}

#[test]
fn a_peer_that_sends_no_more_still_gets_its_replies() {
    DefaultPool::run_with(async |driver| {
        let (here, there) = socket_pair().unwrap();
        let (received, receiving) = receiver::<Message>(&driver, there).unwrap();
        send_raw(&here, &double(300), &[]);
        rustix::net::shutdown(&here, rustix::net::Shutdown::Write).unwrap();
        serve(received).await;
        receiving.await.unwrap().unwrap();
        let mut reply = [0; 64];
        let (len, _) = rustix::net::recv(&here, &mut reply, RecvFlags::empty()).unwrap();
        // {1: 300, 2: {1: 10}}
        assert_eq!(reply[..len], [0xa2, 1, 0x19, 1, 44, 2, 0xa1, 1, 10]);
        // An empty packet is the end too.
        let (here, there) = socket_pair().unwrap();
        let (received, receiving) = receiver::<Message>(&driver, there).unwrap();
        send_raw(&here, &[], &[]);
        serve(received).await;
        receiving.await.unwrap().unwrap();
    });
}

/// What a sender makes of a peer that answers its one request by this packet.
async fn send_to_hostile(driver: &Driver, reply: &[u8], fds: usize) -> ChannelError {
    let (here, there) = socket_pair().unwrap();
    let (messages, sending) = sender::<Message>(driver, here).unwrap();
    let call = driver.spawn("call", {
        let messages = messages.clone();
        async move { messages.call(Message::Double, 1).await }
    });
    let fds: Vec<_> = (0..fds).map(|_| memfd(b"")).collect();
    // Once the request is there.
    let there = driver.polled_fd(there).unwrap();
    there.readable().await.unwrap();
    send_raw(there.as_ref(), reply, &fds);
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(call.await.unwrap(), Err(RpcError::NoReply));
    assert!(messages.send(Message::Number(1)).await.is_err());
    error
}

#[test]
fn a_sender_refuses_what_is_not_a_reply() {
    DefaultPool::run_with(async |driver| {
        for (reply, fds) in [
            (&b"garbage"[..], 0),
            (&[0xa2, 1, 0, 2, 0xa1, 1, 0x60], 0),
            (&[0xa1, 1, 0], 1),
        ] {
            let error = send_to_hostile(&driver, reply, fds).await;
            assert!(matches!(error, ChannelError::Receive(_)), "{error:?}");
        }
        let error = send_to_hostile(&driver, &[0xa1, 1, 7], 0).await;
        assert!(
            matches!(error, ChannelError::UnexpectedReply { request_id: 7 }),
            "{error:?}"
        );
        let error = send_to_hostile(&driver, &[0; MAX_BYTES + 1], 0).await;
        assert!(matches!(error, ChannelError::TooLong), "{error:?}");
    });
}

/// The flags of a socket belong to all its duplicates, which a process that sent it may have kept.
#[test]
fn a_peer_that_makes_the_socket_blocking_does_not_block_the_pool() {
    let (send, recv) = std::sync::mpsc::channel();
    // A pool that blocks does not end, so it has its own thread.
    std::thread::spawn(move || {
        DefaultPool::run_with(async |driver| {
            let (here, there) = socket_pair().unwrap();
            let kept = (here.try_clone().unwrap(), there.try_clone().unwrap());
            let (numbers, _sending) = sender(&driver, here).unwrap();
            let (_messages, _receiving) = receiver::<Message>(&driver, there).unwrap();
            rustix::io::ioctl_fionbio(&kept.0, false).unwrap();
            rustix::io::ioctl_fionbio(&kept.1, false).unwrap();
            // More than the queues and the socket hold.
            let text = "x".repeat(MAX_BYTES / 2);
            for _ in 0..2 * QUEUE_LEN.get() {
                let sent = numbers.send(Message::Text(text.clone()));
                let _ = sent.now_or_never();
                driver.sleep(Duration::from_millis(1)).await;
            }
        });
        let _ = send.send(());
    });
    assert_eq!(recv.recv_timeout(Duration::from_secs(20)), Ok(()));
}
