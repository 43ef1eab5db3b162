use super::*;
use crate::control::tests::Requests;
use crate::control::tests::worker;
use parking_lot::Mutex;
use std::io::Write;
use std::sync::Arc;

/// Serial port input, kept: as much as it has room for.
#[derive(Clone)]
struct KeptInput {
    kept: Arc<Mutex<Vec<u8>>>,
    room: usize,
}

impl KeptInput {
    fn new(room: usize) -> Self {
        let kept = Arc::default();
        Self { kept, room }
    }
}

impl Write for KeptInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.kept.lock();
        match bytes.len().min(self.room - kept.len()) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            taken => kept.write(&bytes[..taken]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run_chunks(chunks: &[&[u8]]) -> (Requests, Vec<u8>, ConsoleEnd) {
    let (control, requests) = worker();
    let input = KeptInput::new(1 << 20);
    let mut console = Console {
        control,
        input: Input::new(Some(Box::new(input.clone()))),
        output: GuestOutput::new(),
    };
    let mut chunks = chunks.iter();
    let ended = console
        .run_stream(&mut |buffer| {
            let chunk = chunks.next().copied().unwrap_or_default();
            buffer[..chunk.len()].copy_from_slice(chunk);
            Ok(chunk.len())
        })
        .unwrap();
    let kept = input.kept.lock().clone();
    (requests, kept, ended)
}

#[test]
fn input_goes_to_the_guest_except_between_ctrl_q() {
    let (requests, input, ended) = run_chunks(&[b"ls\n\x11pau", b"se\n\x11who", b"ami\n"]);
    assert_eq!(ended, ConsoleEnd::InputClosed);
    assert_eq!(*requests.lock(), ["pause"]);
    assert_eq!(input, b"ls\nwhoami\n");
}

#[test]
fn quit_ends_the_console() {
    let (requests, _, ended) = run_chunks(&[b"\x11resume\nquit\npause\n"]);
    assert_eq!(ended, ConsoleEnd::Quit);
    assert_eq!(*requests.lock(), ["resume"]);
}

#[test]
fn an_overlong_line_is_cut() {
    let long = [b'x'; 4096];
    let (requests, _, _) = run_chunks(&[b"\x11", &long, &long, b"\npause\n"]);
    assert_eq!(*requests.lock(), ["pause"]);
}

#[test]
fn keys_wait_for_a_guest_that_does_not_read_up_to_a_limit() {
    let guest = KeptInput::new(16 << 10);
    let mut input = Input::new(Some(Box::new(guest.clone())));
    let typed = (16 << 10) + input::WAITING_LIMIT;
    for n in 0..typed + 1000 {
        input.type_key(n as u8);
    }
    assert!(input.send_waiting());
    let mut received = Vec::new();
    while input.send_waiting() {
        received.append(&mut guest.kept.lock());
    }
    received.append(&mut guest.kept.lock());
    let expected: Vec<u8> = (0..typed).map(|n| n as u8).collect();
    assert!(received == expected, "{} bytes", received.len());
    // Room again: nothing is dropped any more.
    input.type_key(b'x');
    assert_eq!(*guest.kept.lock(), b"x");
}
