use super::*;
use crate::inspect::InspectTree;
use crate::packet::Fd;
use crate::rpc::Rpc;
use crate::rpc::RpcReply;
use futures::FutureExt;
use rustix::fs::MemfdFlags;
use std::os::fd::AsFd;

#[derive(Debug, Encode, Decode)]
#[cbor(context_bound = "AsMut<Attachments>")]
enum Message {
    #[n(0)]
    #[cbor(map)]
    Bytes(#[cbor(n(1), with = "minicbor::bytes")] Vec<u8>),
    #[n(1)]
    #[cbor(map)]
    Fds(#[n(1)] Vec<Fd>),
    #[n(2)]
    #[cbor(map)]
    Ask(#[n(1)] Exchange),
    #[n(3)]
    #[cbor(map)]
    AskTwice(#[n(1)] Rpc<(), u8>, #[n(2)] Rpc<(), u8>),
}

fn memfd(content: &[u8]) -> Fd {
    let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&fd, content).unwrap();
    fd.into()
}

fn content(fd: impl AsFd) -> Vec<u8> {
    let mut buffer = vec![0; 16];
    let len = rustix::io::pread(fd, &mut buffer, 0).unwrap();
    buffer.truncate(len);
    buffer
}

fn refused(message: &Message) -> EncodeError {
    let refused = encode_message(message, 0);
    refused
        .map(drop)
        .map_err(|refused| refused.error)
        .unwrap_err()
}

#[test]
fn fds_travel_beside_the_bytes_in_their_order() {
    let message = Message::Fds(vec![memfd(b"first"), memfd(b"second")]);
    let (packet, request) = encode_message(&message, 0).unwrap_or_else(|_| panic!("refused"));
    assert!(request.is_none());
    assert_eq!(packet.bytes, [0x82, 1, 0xa1, 1, 0x82, 0, 1]);
    let (Message::Fds(fds), None) = decode_message(packet).unwrap() else {
        panic!("not the message");
    };
    assert_eq!(content(&fds[0]), b"first");
    assert_eq!(content(&fds[1]), b"second");
}

type Exchange = Rpc<Option<Fd>, Option<Fd>>;
type Caller = (RpcReply<Option<Fd>>, PendingReply);

/// Sends a request over, and gives what the caller and the handler have of it.
fn ask(fd: Option<Fd>) -> (Caller, Exchange, Answer) {
    let (rpc, reply) = Rpc::new(fd);
    let (packet, pending) =
        encode_message(&Message::Ask(rpc), 7).unwrap_or_else(|_| panic!("refused"));
    let (Message::Ask(rpc), Some(answer)) = decode_message(packet).unwrap() else {
        panic!("not a request");
    };
    ((reply, pending.unwrap()), rpc, answer)
}

#[test]
fn a_request_is_answered_in_another_packet() {
    for fd in [Some(memfd(b"fd")), None] {
        let ((mut reply, pending), rpc, answer) = ask(fd);
        let is_some = rpc.split().0.is_some();
        assert!((&mut reply).now_or_never().is_none());
        drop(answer);
        drop(pending);
        assert_eq!(reply.now_or_never().unwrap().err(), Some(RpcError::NoReply));

        let ((reply, pending), rpc, answer) = ask(None);
        rpc.complete(is_some.then(|| memfd(b"answer")));
        let packet = answer.now_or_never().unwrap();
        assert_eq!(reply_request_id(&packet), Ok(7));
        pending.complete(packet).unwrap();
        let output = reply.now_or_never().unwrap().unwrap();
        assert_eq!(output.map(content), is_some.then(|| b"answer".to_vec()));
    }
}

#[test]
fn a_request_dropped_by_the_other_process_has_no_reply() {
    let ((reply, pending), rpc, answer) = ask(None);
    drop(rpc);
    pending.complete(answer.now_or_never().unwrap()).unwrap();
    assert_eq!(reply.now_or_never().unwrap().err(), Some(RpcError::NoReply));
}

#[test]
fn what_does_not_fit_in_a_packet_is_refused() {
    // 7 bytes of structure.
    let fits = Message::Bytes(vec![0; MAX_BYTES - 7]);
    assert!(encode_message(&fits, 0).is_ok_and(|(packet, _)| packet.bytes.len() <= MAX_BYTES));
    let long = Message::Bytes(vec![0; MAX_BYTES]);
    assert!(matches!(refused(&long), EncodeError::TooLong { .. }));
    let fd = memfd(b"");
    assert!(encode_message(&Message::Fds(vec![fd.clone(); MAX_FDS]), 0).is_ok());
    assert_eq!(
        refused(&Message::Fds(vec![fd; MAX_FDS + 1])),
        EncodeError::TooManyFds { count: MAX_FDS + 1 }
    );
    let twice = Message::AskTwice(Rpc::new(()).0, Rpc::new(()).0);
    assert_eq!(refused(&twice), EncodeError::SeveralRequests { count: 2 });
}

#[test]
fn an_answer_that_does_not_fit_in_a_packet_is_no_reply() {
    let packet = encode_reply(3, Some("x".repeat(MAX_BYTES)));
    assert_eq!(reply_request_id(&packet), Ok(3));
    assert_eq!(decode_reply::<String>(packet), Ok(None));
}

/// It would end the channel at its receiver.
#[test]
fn what_nests_too_deep_is_not_sent() {
    let nested =
        |depth| (0..depth).fold(InspectTree::Null, |tree, _| InspectTree::List(vec![tree]));
    assert!(encode_message(&nested(15), 0).is_ok());
    let refused = encode_message(&nested(100), 0).err().unwrap();
    assert_eq!(refused.error, EncodeError::TooDeep);
    let packet = encode_reply(3, Some(nested(100)));
    assert_eq!(reply_request_id(&packet), Ok(3));
    assert_eq!(decode_reply::<InspectTree>(packet), Ok(None));
}

#[test]
fn an_answer_carries_no_request() {
    let packet = encode_reply(3, Some(Rpc::<(), u8>::new(()).0));
    assert_eq!(reply_request_id(&packet), Ok(3));
    assert!(matches!(decode_reply::<Rpc<(), u8>>(packet), Ok(None)));
    let packet = Packet {
        // {1: 3, 2: {1: {1: 0, 2: []}}}
        bytes: vec![0xa2, 1, 3, 2, 0xa1, 1, 0xa2, 1, 0, 2, 0x80],
        fds: Vec::new(),
    };
    let error = decode_reply::<Rpc<(), u8>>(packet).unwrap_err();
    assert_eq!(error, ReceiveError::SeveralRequests { count: 1 });
}

#[test]
fn hostile_packets_are_errors() {
    let receive = |bytes: &[u8], fds: usize| {
        let packet = Packet {
            bytes: bytes.to_vec(),
            fds: (0..fds).map(|_| memfd(b"")).collect(),
        };
        decode_message::<Message>(packet).map(drop).unwrap_err()
    };
    assert_eq!(receive(&[], 0), DecodeError::Truncated.into());
    assert!(matches!(receive(b"garbage", 0), ReceiveError::Decode(_)));
    // An unknown variant.
    assert!(matches!(
        receive(&[0x82, 9, 0xa0], 0),
        ReceiveError::Decode(DecodeError::Malformed(_))
    ));
    // A descriptor that nothing refers to, that is not there, and that is used twice.
    assert_eq!(
        receive(&[0x82, 0, 0xa1, 1, 0x40], 2),
        ReceiveError::UnexpectedFds { count: 2 }
    );
    for bytes in [
        &[0x82, 1, 0xa1, 1, 0x81, 1][..],
        &[0x82, 1, 0xa1, 1, 0x82, 0, 0],
        &[
            0x82, 1, 0xa1, 1, 0x81, 0x1b, 255, 255, 255, 255, 255, 255, 255, 255,
        ],
    ] {
        let error = receive(bytes, 1);
        assert!(
            matches!(error, ReceiveError::Decode(DecodeError::Malformed(_))),
            "{error:?}"
        );
    }
    // Two requests: {1: {1: 0, 2: []}, 2: {1: 1, 2: []}}.
    let request = |id| [0xa2, 1, id, 2, 0x80];
    let twice = [&[0x82, 3, 0xa2, 1][..], &request(0), &[2], &request(1)].concat();
    assert_eq!(
        receive(&twice, 0),
        ReceiveError::SeveralRequests { count: 2 }
    );
}

#[test]
fn hostile_replies_are_errors() {
    for bytes in [
        &[][..],
        b"garbage",
        &[0xa1, 1, 7, 0],
        &[0xa2, 1, 7, 2, 0x01],
    ] {
        let ((reply, pending), ..) = ask(None);
        let packet = Packet {
            bytes: bytes.to_vec(),
            fds: Vec::new(),
        };
        assert!(pending.complete(packet).is_err(), "{bytes:x?}");
        assert_eq!(reply.now_or_never().unwrap().err(), Some(RpcError::NoReply));
    }
}
