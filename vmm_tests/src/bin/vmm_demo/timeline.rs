//! What happened when, and to whom, as lines on standard output.

use std::time::Instant;

/// The time since the story began.
pub(crate) struct Timeline {
    started: Instant,
}

impl Timeline {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Something about the host.
    pub(crate) fn host(&self, what: &str) {
        self.line("host ", what);
    }

    /// Something about the guest.
    pub(crate) fn guest(&self, what: &str) {
        self.line("guest", what);
    }

    /// What this was all about.
    pub(crate) fn verdict(&self, what: &str) {
        self.line("     ", what);
    }

    /// The next part of the story.
    pub(crate) fn heading(&self, what: &str) {
        println!("\n{what}");
    }

    fn line(&self, who: &str, what: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        println!("{seconds:7.1} s  {who}  {what}");
    }
}
