use super::*;
use serde_json::Value;
use std::io::Read as _;
use std::io::Write as _;
use virtio::Buffer;
use virtio::testing::TestMachine;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

fn stream() -> (FrameStream, UnixStream) {
    let (own, peer) = UnixStream::pair().unwrap();
    (FrameStream::new(own, Value::Null).unwrap(), peer)
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes(), bytes].concat()
}

/// Receives with `room` bytes of guest memory. Returns the frame without its header, which is zero.
fn receive(stream: &FrameStream, room: u32) -> Result<Vec<u8>, ReceiveError> {
    let machine = TestMachine::new();
    let mut buffers = GuestIoVec::new(&machine.memory);
    let list = [(0x1000, room / 2), (0x9000, room - room / 2)];
    buffers
        .extend(list.map(|(gpa, len)| Buffer { gpa, len }))
        .unwrap();
    let mut spill = vec![0xff; header::MAX_LEN as usize];
    let len = stream.receive(&mut buffers, &mut spill)?;
    let mut bytes = vec![0; len.min(room as usize)];
    let copied = buffers.copy_to(&mut bytes);
    assert_eq!(copied, bytes.len());
    bytes.extend(&spill[..len - copied]);
    assert_eq!(bytes[..HEADER], [0; HEADER]);
    Ok(bytes.split_off(HEADER))
}

/// A frame with `header` in guest memory.
fn guest_frame(machine: &TestMachine, bytes: &[u8]) -> GuestIoVec {
    let frame = [&[0xee; HEADER], bytes].concat();
    let memory = machine.memory.map();
    memory.write_slice(&frame, GuestAddress(0x1_0000)).unwrap();
    let mut pieces = GuestIoVec::new(&machine.memory);
    let buffer = Buffer {
        gpa: 0x1_0000,
        len: frame.len() as u32,
    };
    pieces.extend([buffer]).unwrap();
    pieces
}

fn text(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed))
        .collect()
}

#[test]
fn frames_arrive_whole_however_the_stream_is_cut() {
    let (stream, mut peer) = stream();
    let frames = [text(1, 1), text(60, 2), text(1500, 3), text(4000, 4)];
    let bytes = frames.iter().flat_map(|frame| framed(frame));
    let mut received = Vec::new();
    for byte in bytes {
        peer.write_all(&[byte]).unwrap();
        match receive(&stream, 100) {
            Ok(frame) => received.push(frame),
            Err(ReceiveError::Empty) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(received, frames);
}

#[test]
fn more_frames_than_there_is_room_for_arrive_in_order() {
    let (stream, mut peer) = stream();
    let sender = std::thread::spawn(move || {
        for n in 0..200 {
            let frame = text(1 + n * 331 % MAX_FRAME, n as u8);
            peer.write_all(&framed(&frame)).unwrap();
        }
        peer.write_all(&framed(&text(MAX_FRAME, 0))).unwrap();
    });
    let mut received = Vec::new();
    while received.len() < 201 {
        match receive(&stream, 4096) {
            Ok(frame) => received.push(frame),
            Err(ReceiveError::Empty) => std::thread::yield_now(),
            Err(error) => panic!("{error:?}"),
        }
    }
    sender.join().unwrap();
    for (n, frame) in received[..200].iter().enumerate() {
        assert_eq!(*frame, text(1 + n * 331 % MAX_FRAME, n as u8), "{n}");
    }
    assert_eq!(received[200], text(MAX_FRAME, 0));
}

/// Nobody knows where the next frame begins.
#[test]
fn an_impossible_length_ends_the_stream() {
    for claimed in [0, MAX_FRAME as u32 + 1, 0xffff_ffff] {
        let (stream, mut peer) = stream();
        peer.write_all(&framed(b"good")).unwrap();
        peer.write_all(&claimed.to_be_bytes()).unwrap();
        peer.write_all(&framed(b"never")).unwrap();
        assert_eq!(receive(&stream, 100).unwrap(), b"good");
        for _ in 0..2 {
            let error = receive(&stream, 100).unwrap_err();
            let ReceiveError::Gone(error) = error else {
                panic!("{error:?}");
            };
            assert!(
                error.to_string().contains(&format!(" {claimed} bytes")),
                "{error}"
            );
            assert!(matches!(stream.discard(), Err(ReceiveError::Gone(_))));
        }
    }
}

#[test]
fn what_arrived_before_the_end_is_received() {
    let (stream, mut peer) = stream();
    peer.write_all(&framed(b"dropped")).unwrap();
    peer.write_all(&framed(b"last")).unwrap();
    peer.write_all(&[0, 0]).unwrap();
    drop(peer);
    stream.discard().unwrap();
    assert_eq!(receive(&stream, 100).unwrap(), b"last");
    assert!(matches!(receive(&stream, 100), Err(ReceiveError::Gone(_))));
}

#[test]
fn frames_are_sent_after_their_length_and_without_their_header() {
    let (stream, mut peer) = stream();
    let machine = TestMachine::new();
    stream.send(&guest_frame(&machine, b"first")).unwrap();
    stream.send(&guest_frame(&machine, b"2")).unwrap();
    assert!(stream.send(&guest_frame(&machine, b"")).is_err());
    drop(stream);
    let mut sent = Vec::new();
    peer.read_to_end(&mut sent).unwrap();
    assert_eq!(sent, [framed(b"first"), framed(b"2")].concat());
}

#[test]
fn a_frame_that_was_sent_in_part_is_completed_before_the_next() {
    let (stream, mut peer) = stream();
    let machine = TestMachine::new();
    let mut taken = 0;
    loop {
        let frame = text(50_000, taken);
        match stream.send(&guest_frame(&machine, &frame)) {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    let blocked = stream.flush().unwrap_err();
    assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
    let reader = std::thread::spawn(move || {
        let mut sent = Vec::new();
        peer.read_to_end(&mut sent).unwrap();
        sent
    });
    while stream.flush().is_err() {
        std::thread::yield_now();
    }
    drop(stream);
    let expected: Vec<_> = (0..taken).flat_map(|n| framed(&text(50_000, n))).collect();
    assert!(taken > 1);
    assert!(reader.join().unwrap() == expected);
}

#[test]
fn sending_to_nobody_fails_and_keeps_nothing() {
    let (stream, peer) = stream();
    let machine = TestMachine::new();
    drop(peer);
    for _ in 0..2 {
        let error = stream.send(&guest_frame(&machine, b"x")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        stream.flush().unwrap();
    }
}
