//! The console on a terminal.

use super::CTRL_Q;
use super::Console;
use super::ConsoleEnd;
use super::command::CommandResult;
use super::command::execute;
use super::editor::LineEditor;
use super::editor::PromptInput;
use super::input;
use crate::message::write_through;
use crate::terminal;
use crate::terminal::Mode;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

/// Where the prompt is shown.
pub(super) enum Screen {
    /// Standard output is a terminal.
    Stdout,
    /// Standard output has only the guest's output, and the prompt is shown on the terminal of standard input.
    Terminal(File),
}

impl Screen {
    fn open() -> Self {
        if io::stdout().is_terminal() {
            return Self::Stdout;
        }
        match File::options().write(true).open("/proc/self/fd/0") {
            Ok(terminal) => Self::Terminal(terminal),
            Err(error) => {
                tracing::debug!(%error, "cannot open the terminal for writing");
                Self::Stdout
            }
        }
    }

    fn print(&self, text: &str) {
        // Errors are ignored: the VM keeps running if its user is gone.
        let _ = write_through(self.as_fd(), text.as_bytes());
    }
}

impl AsFd for Screen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stdout => rustix::stdio::stdout(),
            Self::Terminal(terminal) => terminal.as_fd(),
        }
    }
}

impl Console {
    pub(super) fn run_terminal(&mut self) -> io::Result<ConsoleEnd> {
        let screen = Screen::open();
        let mut editor = None;
        loop {
            let Some(key) = self.read_key()? else {
                return Ok(ConsoleEnd::InputClosed);
            };
            if key != CTRL_Q {
                self.input.type_key(key);
                continue;
            }
            self.output.hold();
            terminal::wait_and_take(Mode::Prompt)?;
            let editor = match &mut editor {
                Some(editor) => editor,
                none => {
                    let editor = LineEditor::new(self.control.clone(), &screen);
                    none.insert(editor.map_err(io::Error::other)?)
                }
            };
            let ended = self.prompt(editor, &screen)?;
            self.output.release()?;
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// Waits for a key. `None` when there will be no more.
    ///
    /// Byte by byte: what follows Ctrl-Q must be left for the line editor, which reads the terminal itself.
    fn read_key(&mut self) -> io::Result<Option<u8>> {
        let stdin = rustix::stdio::stdin();
        loop {
            terminal::wait_and_take(Mode::Raw)?;
            let retry = Timespec {
                tv_sec: 0,
                tv_nsec: input::RETRY.subsec_nanos().into(),
            };
            let wait = self.input.send_waiting().then_some(&retry);
            match rustix::event::poll(&mut [PollFd::new(&stdin, PollFlags::IN)], wait) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            // The input of a terminal that went to another process is not ours.
            if !terminal::is_ours() {
                continue;
            }
            let mut key = [0; 1];
            match rustix::io::read(stdin, &mut key) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(key[0])),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::IO) if !terminal::is_ours() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Executes commands until the user goes back to the guest (`None`) or quits.
    fn prompt(&self, editor: &mut LineEditor, screen: &Screen) -> io::Result<Option<ConsoleEnd>> {
        screen.print("\n");
        loop {
            terminal::wait_and_take(Mode::Prompt)?;
            match editor.read_line() {
                // The process was continued in the background.
                Err(_) if !terminal::is_ours() => {}
                Err(error) => return Err(io::Error::other(error)),
                Ok(PromptInput::Toggle) => return Ok(None),
                Ok(PromptInput::Canceled) => {}
                Ok(PromptInput::Suspend) => {
                    // To the whole job, as the key does it elsewhere. A failure leaves the prompt.
                    let _ =
                        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP);
                }
                Ok(PromptInput::Line(line)) => {
                    let mut show = |text: &str| screen.print(text);
                    match execute(&line, &self.control, &mut show) {
                        CommandResult::Quit => return Ok(Some(ConsoleEnd::Quit)),
                        CommandResult::Print(text) => screen.print(&text),
                    }
                }
            }
        }
    }
}
