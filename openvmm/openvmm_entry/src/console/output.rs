//! The guest's output on its way to standard output.

use parking_lot::Condvar;
use parking_lot::Mutex;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::io;
use std::io::Write;
use std::os::fd::BorrowedFd;
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
        let written = write_through(&held);
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
        write_through(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to the descriptor: the standard library's line buffer would split the output at every newline.
fn write_through(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let stdout = rustix::stdio::stdout();
        match retry(stdout, PollFlags::OUT, || rustix::io::write(stdout, bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Repeats a call on `stream` that was interrupted, or that would block: another process can make standard streams
/// nonblocking.
pub(super) fn retry<T>(
    stream: BorrowedFd<'_>,
    readiness: PollFlags,
    mut call: impl FnMut() -> rustix::io::Result<T>,
) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                rustix::event::poll(&mut [PollFd::new(&stream, readiness)], None)?;
            }
            result => return Ok(result?),
        }
    }
}
