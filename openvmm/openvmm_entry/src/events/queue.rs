//! The lines that wait to be written, and the thread that writes them.

use parking_lot::Condvar;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

/// How many events wait for a reader that takes none; further ones are lost.
pub(super) const CAPACITY: usize = 4096;

/// Lines on their way to a writer that may stall. Adding one never waits.
#[derive(Clone, Default)]
pub(super) struct LineQueue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    /// Lines that found no room since the last one that did.
    lost: u64,
    /// The thread is writing a line.
    writing: bool,
    /// The thread has ended, because the writer failed.
    ended: bool,
}

impl LineQueue {
    /// Starts the thread, which writes the lines to what `open` opens. That may take as long as it likes.
    pub(super) fn start<W: Write>(
        open: impl FnOnce() -> io::Result<W> + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Self::default();
        let thread = queue.clone();
        std::thread::Builder::new()
            .name("events".into())
            .spawn(move || {
                let written = open().and_then(|out| thread.write_to(out));
                if let Err(error) = written {
                    tracing::warn!(%error, "JSON events can no longer be written");
                }
                let mut state = thread.0.state.lock();
                state.ended = true;
                state.lines.clear();
                thread.0.changed.notify_all();
            })?;
        Ok(queue)
    }

    /// Adds a line, if there is room. `lost` makes the line that says how many found none.
    pub(super) fn add(&self, line: String, lost: impl FnOnce(u64) -> String) {
        let mut state = self.0.state.lock();
        if state.ended {
            return;
        }
        if state.lines.len() >= CAPACITY {
            state.lost += 1;
            return;
        }
        state.end_loss(lost);
        state.lines.push_back(line);
        self.0.changed.notify_all();
    }

    /// Adds the last line, for which there is always room.
    pub(super) fn add_last(&self, line: String, lost: impl FnOnce(u64) -> String) {
        let mut state = self.0.state.lock();
        if !state.ended {
            state.end_loss(lost);
            state.lines.push_back(line);
            self.0.changed.notify_all();
        }
    }

    /// Waits until all lines are written, at most for `patience`. Returns how many are not.
    pub(super) fn flush(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        let mut state = self.0.state.lock();
        while !state.ended && (state.writing || !state.lines.is_empty()) {
            if self.0.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.lines.len() + usize::from(state.writing)
    }

    fn write_to(&self, mut out: impl Write) -> io::Result<()> {
        loop {
            let mut state = self.0.state.lock();
            state.writing = false;
            self.0.changed.notify_all();
            let line = loop {
                match state.lines.pop_front() {
                    Some(line) => break line,
                    None => self.0.changed.wait(&mut state),
                }
            };
            state.writing = true;
            drop(state);
            // One write, so that a reader sees whole lines.
            out.write_all(line.as_bytes())?;
        }
    }
}

impl State {
    fn end_loss(&mut self, line: impl FnOnce(u64) -> String) {
        match std::mem::take(&mut self.lost) {
            0 => {}
            lost => self.lines.push_back(line(lost)),
        }
    }
}
