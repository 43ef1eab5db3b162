//! The interactive console. Standard input goes to the guest's serial port; Ctrl-Q switches to the prompt and back.
//!
//! On a terminal the prompt has line editing, history and completion. With any other standard input, the lines between
//! two Ctrl-Q are commands, so that scripts can use the console too.

mod command;
mod editor;
mod input;
mod inspect;
mod output;
mod stream;
mod terminal_console;

pub(crate) use input::GuestInput;
pub(crate) use inspect::select;
pub(crate) use output::GuestOutput;

use crate::control::VmControl;
use input::Input;
use std::io;
use std::io::IsTerminal;

/// The key that switches between the guest and the prompt.
const CTRL_Q: u8 = 0x11;

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
        input: Input::new(guest),
        output,
    };
    if io::stdin().is_terminal() {
        console.run_terminal()
    } else {
        console.run_stream(&mut stream::read_stdin)
    }
}

struct Console {
    control: VmControl,
    input: Input,
    output: GuestOutput,
}

#[cfg(test)]
#[path = "console_test.rs"]
mod tests;
