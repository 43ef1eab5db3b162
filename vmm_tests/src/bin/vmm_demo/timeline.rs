//! Prints what happens, with the time, to standard output.

use std::time::Instant;
use vmm_tests::GuestSession;

/// The time since the start of the demo.
pub(crate) struct Timeline {
    started: Instant,
}

impl Timeline {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Prints what the host does.
    pub(crate) fn host(&self, what: &str) {
        self.line("host ", what);
    }

    /// Prints what the guest does.
    pub(crate) fn guest(&self, what: &str) {
        self.line("guest", what);
    }

    /// Prints a result.
    pub(crate) fn result(&self, what: &str) {
        self.line("     ", what);
    }

    /// Prints the heading of the next part.
    pub(crate) fn heading(&self, what: &str) {
        println!("\n{what}");
    }

    /// Prints `what` the guest does, and its session.
    pub(crate) fn session(&self, what: &str, session: &GuestSession) {
        self.guest(&format!(
            "{what}: boot id {}, token {}, counter {} at {}",
            session.boot_id, session.token, session.counter_pid, session.count
        ));
    }

    fn line(&self, who: &str, what: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        println!("{seconds:7.1} s  {who}  {what}");
    }
}
