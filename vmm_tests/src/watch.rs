//! What was seen of a running openvmm, and waiting for changes.

use crate::JsonEvent;
use crate::OpenvmmExit;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Instant;

/// Everything seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Standard output (or the terminal).
    pub(crate) output: Vec<u8>,
    /// Standard error, where it is not the terminal.
    pub(crate) errors: Vec<u8>,
    pub(crate) events: Vec<JsonEvent>,
    /// Lines of the events file that are not events.
    pub(crate) malformed_events: Vec<String>,
    pub(crate) exit: Option<OpenvmmExit>,
    /// How many of the streams above are still open.
    pub(crate) open_streams: usize,
}

/// [`Seen`], shared by the threads that read openvmm's streams.
#[derive(Debug, Default)]
pub(crate) struct VmWatch {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl VmWatch {
    /// Changes what was seen, and wakes all waiting threads.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` returns something. Returns `None` when `deadline` passes, or when openvmm has ended and all of
    /// its output has arrived.
    pub(crate) fn wait<T>(
        &self,
        deadline: Instant,
        mut found: impl FnMut(&Seen) -> Option<T>,
    ) -> Option<T> {
        let mut seen = self.lock();
        loop {
            if let Some(found) = found(&seen) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let over = seen.exit.is_some() && seen.open_streams == 0;
            if over || left.is_zero() {
                return None;
            }
            seen = self
                .changed
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Seen {
    /// The end of everything, for the message of a failed test.
    pub(crate) fn describe(&self) -> String {
        let tail = |bytes: &[u8]| {
            let from = bytes.len().saturating_sub(3000);
            String::from_utf8_lossy(&bytes[from..]).into_owned()
        };
        let events: Vec<_> = self
            .events
            .iter()
            .map(|event| match &event.reason {
                Some(reason) => format!("{} ({reason})", event.name),
                None => event.name.clone(),
            })
            .collect();
        format!(
            "exit: {:?}\nevents: {}\nstderr: {}\noutput: {}",
            self.exit,
            events.join(", "),
            tail(&self.errors),
            tail(&self.output)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn waiting_ends_when_found_or_when_openvmm_has_ended() {
        let watch = Arc::new(VmWatch::default());
        watch.update(|seen| seen.open_streams = 1);
        let far = Instant::now() + Duration::from_secs(3600);
        let waiter = thread::spawn({
            let watch = watch.clone();
            move || watch.wait(far, |seen| (seen.output == b"ab").then_some(7))
        });
        watch.update(|seen| seen.output.push(b'a'));
        watch.update(|seen| seen.output.push(b'b'));
        assert_eq!(waiter.join().unwrap(), Some(7));

        watch.update(|seen| {
            seen.exit = Some(OpenvmmExit::PoweredOff);
            seen.open_streams = 0;
        });
        assert_eq!(watch.wait(far, |_| None::<()>), None);
    }
}
