//! The user's terminal: raw while the guest has it, and restored however the process ends.

use parking_lot::Mutex;
use rustix::termios::InputModes;
use rustix::termios::LocalModes;
use rustix::termios::OptionalActions;
use rustix::termios::SpecialCodeIndex;
use rustix::termios::Termios;
use std::io;

/// How the terminal was before us, once we have changed it.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// Hands keys to the guest as they are typed: no echo, no line editing, no signals from keys.
///
/// Output processing stays as it is, so that log lines need no carriage returns.
pub(crate) fn set_raw() -> io::Result<()> {
    let mut original = ORIGINAL.lock();
    let current = rustix::termios::tcgetattr(io::stdin())?;
    let mut raw = original.get_or_insert(current).clone();
    raw.input_modes -= InputModes::ICRNL
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::IXON
        | InputModes::ISTRIP
        | InputModes::BRKINT;
    raw.local_modes -= LocalModes::ICANON
        | LocalModes::ECHO
        | LocalModes::ECHONL
        | LocalModes::ISIG
        | LocalModes::IEXTEN;
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
    Ok(())
}

/// Readies the terminal for the prompt's line editor: as it was before us, except that Ctrl-Q is a key even
/// while a command is being carried out.
pub(crate) fn set_for_prompt() -> io::Result<()> {
    let mut original = ORIGINAL.lock();
    let current = rustix::termios::tcgetattr(io::stdin())?;
    let mut prompt = original.get_or_insert(current).clone();
    prompt.input_modes -= InputModes::IXON;
    rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &prompt)?;
    Ok(())
}

/// Restores the terminal, if it was changed. Safe to call at any time, from any thread, more than once.
pub(crate) fn restore() {
    // A panicking thread may hold the lock; better a raw terminal than a process that never ends.
    if let Some(original) = ORIGINAL.try_lock_for(std::time::Duration::from_secs(1))
        && let Some(original) = &*original
    {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, original);
    }
}

/// Makes a panic restore the terminal before its message is printed.
pub(crate) fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        print(info);
    }));
}
