//! The guest's output on its way to standard output.

use crate::message::write_through;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::io;
use std::io::Write;
use std::sync::Arc;

/// How many bytes of output are held back while the prompt is shown. When they are full, the guest has to wait, as for a
/// slow serial line.
const HELD_LIMIT: usize = 1 << 20;

/// Standard output, held back while the user is at the prompt.
#[derive(Clone, Default)]
pub(crate) struct GuestOutput(Arc<OutputGate>);

#[derive(Default)]
struct OutputGate {
    state: Mutex<HeldOutput>,
    released: Condvar,
}

#[derive(Default)]
struct HeldOutput {
    prompt_shown: bool,
    held: Vec<u8>,
}

impl GuestOutput {
    /// Creates an output that is not held back.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Holds output back from now on.
    pub(crate) fn hold(&self) {
        self.0.state.lock().prompt_shown = true;
    }

    /// Writes what was held back, and lets output through from now on.
    pub(crate) fn release(&self) -> io::Result<()> {
        let mut state = self.0.state.lock();
        let held = std::mem::take(&mut state.held);
        // Written under the lock, so that later output cannot overtake it.
        let written = write_through(rustix::stdio::stdout(), &held);
        state.prompt_shown = false;
        self.0.released.notify_all();
        written
    }
}

impl Write for GuestOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        while state.prompt_shown {
            let room = HELD_LIMIT - state.held.len();
            if room > 0 {
                let taken = room.min(bytes.len());
                state.held.extend_from_slice(&bytes[..taken]);
                return Ok(taken);
            }
            self.0.released.wait(&mut state);
        }
        // Written without the lock: a stalled terminal must not block the prompt.
        drop(state);
        write_through(rustix::stdio::stdout(), bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
