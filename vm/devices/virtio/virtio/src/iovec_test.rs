use super::*;
use crate::testing::TestMachine;
use rustix::net::AddressFamily;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use std::io::Seek as _;
use std::io::Write as _;
use vm_memory::Bytes as _;

fn buffer(gpa: u64, len: u32) -> Buffer {
    Buffer { gpa, len }
}

fn text(machine: &TestMachine, gpa: u64, len: usize) -> String {
    let mut bytes = vec![0; len];
    let map = machine.memory.map();
    map.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn files_are_read_and_written_in_pieces() {
    let machine = TestMachine::new();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"2345678").unwrap();
    file.rewind().unwrap();
    let mut pieces = GuestIoVec::new(&machine.memory);
    let list = [buffer(0x1000, 3), buffer(0x2000, 4)];
    pieces.extend(list).unwrap();
    assert_eq!(pieces.read_message(&file, &mut []).unwrap(), 7);
    assert_eq!(text(&machine, 0x1000, 3), "234");
    assert_eq!(text(&machine, 0x2000, 4), "5678");
    pieces.advance(4);
    assert_eq!((pieces.len(), pieces.pieces.len()), (3, 1));
    file.rewind().unwrap();
    assert_eq!(pieces.write_to(&file).unwrap(), 3);
    let mut start = [0; 4];
    rustix::io::pread(&file, &mut start, 0).unwrap();
    assert_eq!(&start, b"6785");
    pieces.advance(100);
    assert!(pieces.is_empty());
    assert_eq!(pieces.write_to(&file).unwrap(), 0);
}

#[test]
fn bytes_are_copied_as_far_as_they_fit() {
    let machine = TestMachine::new();
    let mut pieces = GuestIoVec::new(&machine.memory);
    assert_eq!(pieces.copy_from(b"nothing"), 0);
    pieces
        .extend([buffer(0x1000, 3), buffer(0x2000, 4)])
        .unwrap();
    assert_eq!(pieces.copy_from(b"1234567890"), 7);
    assert_eq!(text(&machine, 0x1000, 3), "123");
    assert_eq!(text(&machine, 0x2000, 4), "4567");
    assert_eq!(pieces.copy_from(b"ab"), 2);
    pieces.advance(1);
    let mut bytes = *b"........";
    assert_eq!(pieces.copy_to(&mut bytes), 6);
    assert_eq!(&bytes, b"b34567..");
    let mut few = [0; 4];
    assert_eq!(pieces.copy_to(&mut few), 4);
    assert_eq!(&few, b"b345");
}

#[test]
fn a_list_with_memory_outside_of_ram_is_refused_as_a_whole() {
    let machine = TestMachine::new();
    let mut pieces = GuestIoVec::new(&machine.memory);
    pieces.extend([buffer(0, 8)]).unwrap();
    for bad in [
        buffer(32 << 20, 1),
        buffer((32 << 20) - 1, 2),
        buffer(u64::MAX, 2),
    ] {
        assert!(pieces.extend([buffer(64, 8), bad]).is_err());
        assert_eq!((pieces.len(), pieces.pieces.len()), (8, 1));
    }
    let many = std::iter::repeat_n(buffer(0, 1), 2000);
    assert!(pieces.extend(many).is_err());
    assert_eq!(pieces.len(), 8);
}

#[test]
fn the_rest_of_a_message_goes_to_the_spill_buffer() {
    let machine = TestMachine::new();
    let (from, to) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let mut pieces = GuestIoVec::new(&machine.memory);
    pieces.extend([buffer(0x1000, 4)]).unwrap();
    let mut spill = [0; 8];
    rustix::io::write(&from, b"message").unwrap();
    assert_eq!(pieces.read_message(&to, &mut spill).unwrap(), 7);
    assert_eq!(text(&machine, 0x1000, 4), "mess");
    assert_eq!(&spill[..4], b"age\0");
    assert_eq!((pieces.len(), pieces.pieces.len()), (4, 1));
}
