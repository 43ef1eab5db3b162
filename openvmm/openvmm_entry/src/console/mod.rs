//! The interactive console: standard input goes to the guest's serial port, until Ctrl-Q calls the prompt.
//!
//! On a terminal the prompt has line editing, history and completion. With any other standard input,
//! Ctrl-Q works as well, and lines up to the next Ctrl-Q are commands: scripts can use the same means.

mod command;
mod editor;
mod inspect;
mod output;

pub(crate) use command::Control;
pub(crate) use output::GuestOutput;

use crate::terminal;
use command::Outcome;
use command::execute;
use editor::Entered;
use editor::LineEditor;
use std::io;
use std::io::IsTerminal;
use std::io::Write;

/// Switches between guest and prompt.
const CTRL_Q: u8 = 0x11;

/// The longest command line taken from something that is not a terminal, in bytes.
const MAX_LINE: usize = 4096;

/// Where the user's keys go.
pub(crate) trait GuestInput: Send {
    /// Gives the guest all of `bytes`, waiting while it has no room. An error means that it never will.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// How the console's work ended.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A user asked for the VM's end.
    Quit,
    /// There is no more input; the VM goes on without.
    InputClosed,
}

/// Reads standard input until it ends or a user quits.
pub(crate) fn run<C: Control + Clone>(
    control: C,
    guest: Option<Box<dyn GuestInput>>,
    output: GuestOutput,
) -> io::Result<Ended> {
    let mut console = Console {
        control,
        guest,
        output,
    };
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        console.run_terminal()
    } else {
        console.run_stream(&mut rustix_stdin)
    }
}

fn rustix_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut *buffer) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let stdin = rustix::stdio::stdin();
                let mut fds = [rustix::event::PollFd::new(
                    &stdin,
                    rustix::event::PollFlags::IN,
                )];
                rustix::event::poll(&mut fds, None)?;
            }
            result => return Ok(result?),
        }
    }
}

struct Console<C> {
    control: C,
    guest: Option<Box<dyn GuestInput>>,
    output: GuestOutput,
}

impl<C: Control + Clone> Console<C> {
    fn send_to_guest(&mut self, bytes: &[u8]) {
        if let Some(guest) = &mut self.guest
            && let Err(error) = guest.write_all(bytes)
        {
            tracing::warn!(%error, "the guest takes no more input");
            self.guest = None;
        }
    }

    fn run_terminal(&mut self) -> io::Result<Ended> {
        terminal::set_raw()?;
        let mut editor = None;
        // Key by key: what is typed after Ctrl-Q is left for the line editor, which reads the terminal itself.
        let mut key = [0; 1];
        loop {
            if rustix_stdin(&mut key)? == 0 {
                return Ok(Ended::InputClosed);
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

    /// Takes commands until the user goes back to the guest (`None`) or quits.
    fn prompt(&self, editor: &mut LineEditor<C>) -> io::Result<Option<Ended>> {
        println!();
        loop {
            match editor.read_line().map_err(io::Error::other)? {
                Entered::Toggle => return Ok(None),
                Entered::Nothing => {}
                Entered::Line(line) => match execute(&line, &self.control) {
                    Outcome::Quit => return Ok(Some(Ended::Quit)),
                    Outcome::Print(text) => print_text(&text),
                },
            }
        }
    }

    fn run_stream(
        &mut self,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Ended> {
        let mut line: Option<Vec<u8>> = None;
        let mut buffer = [0; 4096];
        loop {
            let count = read(&mut buffer)?;
            if count == 0 {
                self.output.release()?;
                return Ok(Ended::InputClosed);
            }
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                match &mut line {
                    None => {
                        let end = rest.iter().position(|byte| *byte == CTRL_Q);
                        self.send_to_guest(&rest[..end.unwrap_or(rest.len())]);
                        rest = &rest[end.map_or(rest.len(), |end| end + 1)..];
                        if end.is_some() {
                            self.output.hold();
                            line = Some(Vec::new());
                        }
                    }
                    Some(text) => {
                        let byte = rest[0];
                        rest = &rest[1..];
                        match byte {
                            CTRL_Q => {
                                line = None;
                                self.output.release()?;
                            }
                            b'\n' => {
                                let command =
                                    String::from_utf8_lossy(&std::mem::take(text)).into_owned();
                                match execute(&command, &self.control) {
                                    Outcome::Quit => {
                                        self.output.release()?;
                                        return Ok(Ended::Quit);
                                    }
                                    Outcome::Print(text) => print_text(&text),
                                }
                            }
                            // Of an overlong line the rest is dropped; it is no command anyway.
                            _ if text.len() < MAX_LINE => text.push(byte),
                            _ => {}
                        }
                    }
                }
            }
        }
    }
}

/// A closed standard output is no reason to end the VM.
pub(crate) fn print_text(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use openvmm_defs::request::Change;
    use parking_lot::Mutex;
    use serde_json::Value;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Vm {
        calls: Arc<Mutex<Vec<&'static str>>>,
        input: Arc<Mutex<Vec<u8>>>,
    }

    impl Control for Vm {
        fn pause(&self) -> Result<Change, String> {
            self.calls.lock().push("pause");
            Ok(Change::Changed)
        }
        fn resume(&self) -> Result<Change, String> {
            self.calls.lock().push("resume");
            Ok(Change::Changed)
        }
        fn reset(&self) -> Result<(), String> {
            Ok(())
        }
        fn power_button(&self) -> Result<(), String> {
            Ok(())
        }
        fn inspect(&self) -> Result<Value, String> {
            Ok(Value::Null)
        }
    }

    impl GuestInput for Vm {
        fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.input.lock().extend_from_slice(bytes);
            Ok(())
        }
    }

    fn run_chunks(chunks: &[&[u8]]) -> (Vm, Ended) {
        let vm = Vm::default();
        let mut console = Console {
            control: vm.clone(),
            guest: Some(Box::new(vm.clone())),
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
        (vm, ended)
    }

    #[test]
    fn input_is_the_guests_until_ctrl_q() {
        let (vm, ended) = run_chunks(&[b"ls\n\x11pau", b"se\n\x11who", b"ami\n"]);
        assert_eq!(ended, Ended::InputClosed);
        assert_eq!(*vm.calls.lock(), ["pause"]);
        assert_eq!(vm.input.lock().as_slice(), b"ls\nwhoami\n");
    }

    #[test]
    fn quit_ends_it() {
        let (vm, ended) = run_chunks(&[b"\x11resume\nquit\npause\n"]);
        assert_eq!(ended, Ended::Quit);
        assert_eq!(*vm.calls.lock(), ["resume"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let long = [b'x'; 4096];
        let (vm, _) = run_chunks(&[b"\x11", &long, &long, b"\npause\n"]);
        assert_eq!(*vm.calls.lock(), ["pause"]);
    }
}
