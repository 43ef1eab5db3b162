//! Runs what the fuzz target `mesh_remote` tries over a few seeds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../fuzz/drivers/mesh_remote.rs"]
mod driver;

use driver::Message;
use driver::Outcome;
use driver::run;
use mesh::Rpc;
use mesh::wire;

fn packet(fds: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap().to_le_bytes();
    [&[fds], &len[..], bytes].concat()
}

fn encode(message: &Message) -> Vec<u8> {
    let encoded = wire::encode_message(message, 0).map(|(packet, _)| packet.bytes);
    encoded.unwrap_or_default()
}

#[test]
fn messages_are_received() {
    let (drop_rpc, _) = Rpc::new(1);
    let data = [
        packet(0, &encode(&Message::Text("text".to_owned()))),
        packet(0, &encode(&Message::Drop(drop_rpc))),
        // With two descriptors: [1, {1: {1: 0, 2: [0, 1]}}].
        packet(2, &[0x82, 1, 0xa1, 1, 0xa2, 1, 0, 2, 0x82, 0, 1]),
    ]
    .concat();
    let expected = Outcome {
        messages: 3,
        receiver_content: true,
        replied: false,
    };
    assert_eq!(run(&data), expected);
}

#[test]
fn a_reply_is_taken() {
    // {1: 0, 2: {1: [0, 7]}}: Ok(7).
    let outcome = run(&packet(0, &[0xa2, 1, 0, 2, 0xa1, 1, 0x82, 0, 7]));
    let expected = Outcome {
        messages: 0,
        receiver_content: false,
        replied: true,
    };
    assert_eq!(outcome, expected);
}

#[test]
fn damaged_packets_are_refused() {
    let (rpc, _) = Rpc::new(1);
    let bytes = encode(&Message::Drop(rpc));
    for index in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << bit;
            run(&packet(0, &damaged));
        }
        run(&packet(0, &bytes[..index]));
    }
    for fds in 1..32 {
        let outcome = run(&packet(fds, &bytes));
        assert_eq!((outcome.messages, outcome.receiver_content), (0, false));
    }
    run(&[0xff; 1000]);
    run(&[0; 1000]);
}
