//! The console without a terminal.

use super::CTRL_Q;
use super::Console;
use super::ConsoleEnd;
use super::command::CommandResult;
use super::command::execute;
use crate::message;
use rustix::event::PollFlags;
use std::io;

/// The longest command line, in bytes.
const MAX_LINE: usize = 4096;

pub(super) fn read_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    let stdin = rustix::stdio::stdin();
    message::retry(stdin, PollFlags::IN, || {
        rustix::io::read(stdin, &mut *buffer)
    })
}

/// Prints to standard output. Errors are ignored: the VM keeps running if standard output is closed.
fn print(text: &str) {
    let _ = message::write_through(rustix::stdio::stdout(), text.as_bytes());
}

impl Console {
    /// Input is taken in its order: a command waits until the guest has room for what comes before it.
    pub(super) fn run_stream(
        &mut self,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<ConsoleEnd> {
        let mut command: Option<Vec<u8>> = None;
        let mut buffer = [0; 4096];
        loop {
            let count = read(&mut buffer)?;
            if count == 0 {
                self.output.release()?;
                return Ok(ConsoleEnd::InputClosed);
            }
            for part in buffer[..count].split_inclusive(|byte| matches!(*byte, CTRL_Q | b'\n')) {
                match (&mut command, part) {
                    (None, [input @ .., CTRL_Q]) => {
                        self.input.send_all(input);
                        self.output.hold();
                        command = Some(Vec::new());
                    }
                    (None, input) => self.input.send_all(input),
                    (Some(_), [.., CTRL_Q]) => {
                        command = None;
                        self.output.release()?;
                    }
                    (Some(line), text) => {
                        // The rest of an overlong line is dropped: no command is that long.
                        line.extend(text.iter().take(MAX_LINE.saturating_sub(line.len())));
                        if text.ends_with(b"\n") {
                            let line = std::mem::take(line);
                            // Who reads the output of a stream wants results.
                            let mut show = |_: &str| {};
                            let line = String::from_utf8_lossy(&line);
                            match execute(&line, &self.control, &mut show) {
                                CommandResult::Quit => {
                                    self.output.release()?;
                                    return Ok(ConsoleEnd::Quit);
                                }
                                CommandResult::Print(text) => print(&text),
                            }
                        }
                    }
                }
            }
        }
    }
}
