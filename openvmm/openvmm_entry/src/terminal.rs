//! The user's terminal: raw while the guest uses it, and restored however the process ends.

use parking_lot::Mutex;
use rustix::termios::InputModes;
use rustix::termios::OptionalActions;
use rustix::termios::SpecialCodeIndex;
use rustix::termios::Termios;
use std::io;

/// The terminal's original settings, once they were changed.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// Changes the terminal's original settings.
fn set(change: impl FnOnce(&mut Termios)) -> io::Result<()> {
    let mut original = ORIGINAL.lock();
    let current = rustix::termios::tcgetattr(io::stdin())?;
    let mut changed = original.get_or_insert(current).clone();
    change(&mut changed);
    rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &changed)?;
    Ok(())
}

/// Sets raw mode for the guest: no echo, no line editing, no signals from keys.
///
/// Output and line settings stay as they are, so that log lines need no carriage returns.
pub(crate) fn set_raw() -> io::Result<()> {
    set(|raw| {
        let (output, control) = (raw.output_modes, raw.control_modes);
        raw.make_raw();
        (raw.output_modes, raw.control_modes) = (output, control);
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    })
}

/// Sets the mode for the prompt's line editor: the original mode, but Ctrl-Q is a key even while a command runs.
pub(crate) fn set_for_prompt() -> io::Result<()> {
    set(|prompt| prompt.input_modes -= InputModes::IXON)
}

/// Restores the terminal if it was changed. Can be called at any time, from any thread, more than once.
pub(crate) fn restore() {
    // A panicking thread may hold the lock; the process must end even if the terminal stays raw.
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
