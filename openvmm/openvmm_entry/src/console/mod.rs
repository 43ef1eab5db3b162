//! The interactive console. Standard input goes to the guest's serial port; Ctrl-Q switches to the prompt and back.
//!
//! On a terminal the prompt has line editing, history and completion. With any other standard input, the lines between
//! two Ctrl-Q are commands, so that scripts can use the console too.

mod command;
mod editor;
mod inspect;
mod output;

pub(crate) use output::GuestOutput;

use crate::control::VmControl;
use crate::terminal;
use command::CommandResult;
use command::execute;
use editor::LineEditor;
use editor::PromptInput;
use output::retry;
use rustix::event::PollFlags;
use std::io;
use std::io::IsTerminal;
use std::io::Write;

/// The key that switches between the guest and the prompt.
const CTRL_Q: u8 = 0x11;

/// The longest command line read from anything but a terminal, in bytes.
const MAX_LINE: usize = 4096;

/// What receives the user's input in the guest.
pub(crate) type GuestInput = Box<dyn Write + Send>;

/// Why the console ended.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum ConsoleEnd {
    /// The user quit.
    Quit,
    /// Standard input ended. The VM keeps running.
    InputClosed,
}

/// Reads standard input until it ends or a user quits.
pub(crate) fn run(
    control: VmControl,
    guest: Option<GuestInput>,
    output: GuestOutput,
) -> io::Result<ConsoleEnd> {
    let mut console = Console {
        control,
        guest,
        output,
    };
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        console.run_terminal()
    } else {
        console.run_stream(&mut read_stdin)
    }
}

fn read_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    let stdin = rustix::stdio::stdin();
    retry(stdin, PollFlags::IN, || {
        rustix::io::read(stdin, &mut *buffer)
    })
}

struct Console {
    control: VmControl,
    guest: Option<GuestInput>,
    output: GuestOutput,
}

impl Console {
    fn send_to_guest(&mut self, bytes: &[u8]) {
        if let Some(guest) = &mut self.guest
            && let Err(error) = guest.write_all(bytes)
        {
            tracing::warn!(%error, "cannot write to the guest's serial port; further input is dropped");
            self.guest = None;
        }
    }

    fn run_terminal(&mut self) -> io::Result<ConsoleEnd> {
        terminal::set_raw()?;
        let mut editor = None;
        // Byte by byte: what follows Ctrl-Q must be left for the line editor, which reads the terminal itself.
        let mut key = [0; 1];
        loop {
            if read_stdin(&mut key)? == 0 {
                return Ok(ConsoleEnd::InputClosed);
            }
            if key != [CTRL_Q] {
                self.send_to_guest(&key);
                continue;
            }
            self.output.hold();
            terminal::set_for_prompt()?;
            let editor = match &mut editor {
                Some(editor) => editor,
                none => {
                    none.insert(LineEditor::new(self.control.clone()).map_err(io::Error::other)?)
                }
            };
            let ended = self.prompt(editor)?;
            self.output.release()?;
            if let Some(ended) = ended {
                return Ok(ended);
            }
            terminal::set_raw()?;
        }
    }

    /// Executes commands until the user goes back to the guest (`None`) or quits.
    fn prompt(&self, editor: &mut LineEditor) -> io::Result<Option<ConsoleEnd>> {
        println!();
        loop {
            match editor.read_line().map_err(io::Error::other)? {
                PromptInput::Toggle => return Ok(None),
                PromptInput::Canceled => {}
                PromptInput::Line(line) => match execute(&line, &self.control) {
                    CommandResult::Quit => return Ok(Some(ConsoleEnd::Quit)),
                    CommandResult::Print(text) => print_text(&text),
                },
            }
        }
    }

    fn run_stream(
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
                        self.send_to_guest(input);
                        self.output.hold();
                        command = Some(Vec::new());
                    }
                    (None, input) => self.send_to_guest(input),
                    (Some(_), [.., CTRL_Q]) => {
                        command = None;
                        self.output.release()?;
                    }
                    (Some(line), text) => {
                        // The rest of an overlong line is dropped: no command is that long.
                        line.extend(text.iter().take(MAX_LINE.saturating_sub(line.len())));
                        if text.ends_with(b"\n") {
                            let line = std::mem::take(line);
                            match execute(&String::from_utf8_lossy(&line), &self.control) {
                                CommandResult::Quit => {
                                    self.output.release()?;
                                    return Ok(ConsoleEnd::Quit);
                                }
                                CommandResult::Print(text) => print_text(&text),
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Prints to standard output. Errors are ignored: the VM keeps running if standard output is closed.
pub(crate) fn print_text(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Requests;
    use crate::control::tests::worker;
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// Serial port input, kept.
    #[derive(Clone, Default)]
    struct KeptInput(Arc<Mutex<Vec<u8>>>);

    impl Write for KeptInput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn run_chunks(chunks: &[&[u8]]) -> (Requests, KeptInput, ConsoleEnd) {
        let (control, requests) = worker();
        let input = KeptInput::default();
        let mut console = Console {
            control,
            guest: Some(Box::new(input.clone())),
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
        (requests, input, ended)
    }

    #[test]
    fn input_goes_to_the_guest_except_between_ctrl_q() {
        let (requests, input, ended) = run_chunks(&[b"ls\n\x11pau", b"se\n\x11who", b"ami\n"]);
        assert_eq!(ended, ConsoleEnd::InputClosed);
        assert_eq!(*requests.lock(), ["pause"]);
        assert_eq!(input.0.lock().as_slice(), b"ls\nwhoami\n");
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
}
