//! The user's terminal: raw while the guest uses it, and as it was before while anybody else does.
//!
//! A shell stops a process in the background that changes the terminal's settings or reads it. So the terminal is taken
//! only while the process is in the foreground, and [`take`] is called again until it is. What stops or ends the process
//! gives the terminal back ([`signals`]).

pub(crate) mod signals;

use parking_lot::Mutex;
use rustix::termios::InputModes;
use rustix::termios::LocalModes;
use rustix::termios::OptionalActions;
use rustix::termios::SpecialCodeIndex;
use rustix::termios::Termios;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How a terminal is set.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// For the guest: no echo, no line editing, no signals from keys.
    ///
    /// Output and line settings stay as they are, so that log lines need no carriage returns.
    Raw = 1,
    /// For the prompt's line editor: as it was, but Ctrl-Q is a key even while a command runs.
    Prompt = 2,
}

/// Whether the process has the terminal.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It has, with the settings asked for.
    Ours,
    /// It has not: the process is in the background, or about to end.
    NotOurs,
}

/// The terminal's settings that are changed here, before they were. Atomic, because signal handlers use them.
static ORIGINAL: StoredSettings = StoredSettings::new();
/// Whether the terminal has other settings than the original ones.
static CHANGED: AtomicBool = AtomicBool::new(false);
/// The [`Mode`] that was asked for last, or 0.
static WANTED: AtomicU8 = AtomicU8::new(0);
/// Whether the terminal was given back for good.
static ENDED: Mutex<bool> = Mutex::new(false);

/// The settings that are changed.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
struct Settings {
    input: InputModes,
    local: LocalModes,
    /// How many bytes a read waits for, and for how long.
    min: u8,
    time: u8,
}

impl Settings {
    fn of(termios: &Termios) -> Self {
        Self {
            input: termios.input_modes,
            local: termios.local_modes,
            min: termios.special_codes[SpecialCodeIndex::VMIN],
            time: termios.special_codes[SpecialCodeIndex::VTIME],
        }
    }

    fn put(self, termios: &mut Termios) {
        termios.input_modes = self.input;
        termios.local_modes = self.local;
        termios.special_codes[SpecialCodeIndex::VMIN] = self.min;
        termios.special_codes[SpecialCodeIndex::VTIME] = self.time;
    }
}

/// [`Settings`] in two words.
struct StoredSettings {
    modes: AtomicU64,
    codes: AtomicU64,
}

impl StoredSettings {
    const fn new() -> Self {
        Self {
            modes: AtomicU64::new(0),
            codes: AtomicU64::new(0),
        }
    }

    fn store(&self, settings: Settings) {
        let (input, local) = (settings.input.bits(), settings.local.bits());
        let modes = u64::from(input) << 32 | u64::from(local);
        self.modes.store(modes, Ordering::SeqCst);
        let codes = u64::from(settings.min) << 8 | u64::from(settings.time);
        self.codes.store(codes, Ordering::SeqCst);
    }

    fn load(&self) -> Settings {
        let modes = self.modes.load(Ordering::SeqCst);
        let codes = self.codes.load(Ordering::SeqCst);
        Settings {
            input: InputModes::from_bits_retain((modes >> 32) as u32),
            local: LocalModes::from_bits_retain(modes as u32),
            min: (codes >> 8) as u8,
            time: codes as u8,
        }
    }
}

/// Whether the process may use the terminal. A terminal that is not the controlling one has no background.
fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(rustix::stdio::stdin())
        .map_or(true, |group| group == rustix::process::getpgrp())
}

/// Whether the process has the terminal, with settings of its own.
pub(crate) fn is_ours() -> bool {
    CHANGED.load(Ordering::SeqCst) && in_foreground()
}

/// Takes the terminal and sets `mode`, if the process is in the foreground.
pub(crate) fn take(mode: Mode) -> io::Result<Taken> {
    let ended = ENDED.lock();
    if *ended {
        return Ok(Taken::NotOurs);
    }
    let before = WANTED.swap(mode as u8, Ordering::SeqCst);
    if before == mode as u8 && is_ours() {
        return Ok(Taken::Ours);
    }
    if !in_foreground() {
        return Ok(Taken::NotOurs);
    }
    set(mode)?;
    Ok(Taken::Ours)
}

/// Takes the terminal as [`take`] does, and waits until the process is in the foreground.
pub(crate) fn wait_and_take(mode: Mode) -> io::Result<()> {
    /// How often to look. A shell tells a running process nothing when it brings it to the foreground.
    const INTERVAL: Duration = Duration::from_millis(100);
    while take(mode)? == Taken::NotOurs {
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

fn set(mode: Mode) -> rustix::io::Result<()> {
    let stdin = rustix::stdio::stdin();
    let mut termios = rustix::termios::tcgetattr(stdin)?;
    if !CHANGED.load(Ordering::SeqCst) {
        ORIGINAL.store(Settings::of(&termios));
    }
    let (output, control) = (termios.output_modes, termios.control_modes);
    ORIGINAL.load().put(&mut termios);
    match mode {
        Mode::Raw => {
            termios.make_raw();
            (termios.output_modes, termios.control_modes) = (output, control);
            termios.special_codes[SpecialCodeIndex::VMIN] = 1;
            termios.special_codes[SpecialCodeIndex::VTIME] = 0;
        }
        Mode::Prompt => termios.input_modes -= InputModes::IXON,
    }
    // First, so that a signal in between gives the terminal back.
    CHANGED.store(true, Ordering::SeqCst);
    rustix::termios::tcsetattr(stdin, OptionalActions::Now, &termios)
}

/// Gives the terminal back, until it is taken again. For signal handlers: it makes only system calls.
fn give_back() {
    if !is_ours() {
        return;
    }
    let stdin = rustix::stdio::stdin();
    if let Ok(mut termios) = rustix::termios::tcgetattr(stdin) {
        ORIGINAL.load().put(&mut termios);
        // Of a terminal that is gone nothing has to be restored.
        let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &termios);
    }
    CHANGED.store(false, Ordering::SeqCst);
}

/// Gives the terminal back for good. Can be called at any time, from any thread, more than once.
pub(crate) fn restore() {
    // A panicking thread may hold the lock; the terminal is given back all the same.
    let ended = ENDED.try_lock_for(Duration::from_secs(1));
    give_back();
    if let Some(mut ended) = ended {
        *ended = true;
    }
}

/// Sets the terminal again after the process was stopped by what cannot be caught.
pub(crate) fn continued() {
    let mode = match WANTED.load(Ordering::SeqCst) {
        1 => Mode::Raw,
        // The line editor has settings of its own, and nothing was taken before.
        _ => return,
    };
    let ended = ENDED.lock();
    if !*ended && in_foreground() {
        // What the shell left behind is not worth a message.
        let _ = set(mode);
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

#[cfg(test)]
#[path = "terminal_test.rs"]
mod tests;
