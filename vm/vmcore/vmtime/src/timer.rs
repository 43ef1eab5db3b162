use crate::VmClock;
use crate::VmInstant;
use std::sync::Arc;

/// A timer on a [`VmClock`]: calls its callback once each time an armed deadline passes.
///
/// Dropping it disarms it.
pub struct VmTimer {
    clock: VmClock,
    id: usize,
}

impl VmClock {
    /// Creates a timer that calls `callback`. It is not armed.
    pub fn new_timer(&self, callback: impl Fn() + Send + Sync + 'static) -> VmTimer {
        let mut state = self.0.shared.state.lock();
        VmTimer {
            id: state.queue.register(Arc::new(callback)),
            clock: self.clone(),
        }
    }
}

impl VmTimer {
    /// Arms the timer, or changes its deadline. If the deadline has passed, the timer fires at once.
    pub fn arm(&self, deadline: VmInstant) {
        let shared = &self.clock.0.shared;
        let mut state = shared.state.lock();
        let first = state.queue.first();
        state.queue.arm(self.id, deadline);
        if first.is_none_or(|first| deadline < first) {
            shared.serve(&mut state);
        }
    }

    /// Disarms the timer. A callback that is about to run may still run once.
    pub fn disarm(&self) {
        self.clock.0.shared.state.lock().queue.disarm(self.id);
    }

    /// The deadline, or `None` if the timer is not armed.
    pub fn deadline(&self) -> Option<VmInstant> {
        self.clock.0.shared.state.lock().queue.deadline(self.id)
    }
}

impl Drop for VmTimer {
    fn drop(&mut self) {
        let callback = self.clock.0.shared.state.lock().queue.remove(self.id);
        // With the clock unlocked: the callback may own the last reference to another timer.
        drop(callback);
    }
}
