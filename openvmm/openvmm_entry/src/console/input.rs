//! The user's input on its way to the guest.

use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::time::Duration;

/// What receives the user's input in the guest. It never blocks: without room, writing is an error
/// [`WouldBlock`](io::ErrorKind::WouldBlock).
pub(crate) type GuestInput = Box<dyn Write + Send>;

/// How many bytes wait for a guest that does not read them: more than anybody pastes at once.
pub(super) const WAITING_LIMIT: usize = 1 << 20;

/// The pause between two attempts to send input to a guest that does not read it.
pub(super) const RETRY: Duration = Duration::from_millis(5);

/// The way to the guest, and the input that waits for room there.
pub(super) struct Input {
    guest: Option<GuestInput>,
    waiting: VecDeque<u8>,
    /// Whether input was dropped since the guest last read some.
    dropping: bool,
}

impl Input {
    pub(super) fn new(guest: Option<GuestInput>) -> Self {
        Self {
            guest,
            waiting: VecDeque::new(),
            dropping: false,
        }
    }

    /// Sends a key. If too many wait already, it is dropped: the next one may be Ctrl-Q.
    pub(super) fn type_key(&mut self, key: u8) {
        if self.guest.is_some() && self.waiting.len() < WAITING_LIMIT {
            self.waiting.push_back(key);
        } else if self.guest.is_some() && !std::mem::replace(&mut self.dropping, true) {
            tracing::warn!("the guest does not read its serial port; further input is dropped");
        }
        self.send_waiting();
    }

    /// Sends what waits and has room. Returns whether something still waits.
    pub(super) fn send_waiting(&mut self) -> bool {
        while !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            match self.guest.as_mut().map(|guest| guest.write(front)) {
                Some(Ok(taken @ 1..)) => {
                    self.waiting.drain(..taken);
                    self.dropping = false;
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Some(Err(error)) => self.give_up(&error),
                Some(Ok(0)) => self.give_up(&io::ErrorKind::WriteZero.into()),
                None => self.waiting.clear(),
            }
        }
        false
    }

    /// Sends all of `bytes`, which come from a stream that can wait.
    pub(super) fn send_all(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        while self.send_waiting() {
            std::thread::sleep(RETRY);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(%error, "cannot write to the guest's serial port; further input is dropped");
        self.guest = None;
    }
}
