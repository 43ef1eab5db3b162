use crate::VmClock;
use crate::VmInstant;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) type Callback = Arc<dyn Fn() + Send + Sync>;

/// A timer on a [`VmClock`]: calls its callback once each time an armed deadline passes.
///
/// Dropping it disarms it.
pub struct VmTimer {
    clock: VmClock,
    id: u64,
    name: Arc<str>,
}

impl VmTimer {
    pub(crate) fn new(clock: VmClock, name: Arc<str>, callback: Callback) -> Self {
        let id = clock.0.shared.state.lock().queue.register(callback);
        Self { clock, id, name }
    }

    /// Arms the timer, or moves its deadline. A deadline that has passed fires at once.
    pub fn arm(&self, deadline: VmInstant) {
        let shared = &self.clock.0.shared;
        let mut state = shared.state.lock();
        let first = state.queue.first();
        state.queue.arm(self.id, deadline);
        if first.is_none_or(|first| deadline < first) {
            shared.serve(&mut state);
        }
    }

    /// Disarms the timer. A callback that is on its way already may still run once.
    pub fn disarm(&self) {
        self.clock.0.shared.state.lock().queue.disarm(self.id);
    }

    /// The deadline, while the timer is armed.
    pub fn deadline(&self) -> Option<VmInstant> {
        self.clock.0.shared.state.lock().queue.deadline(self.id)
    }
}

impl Drop for VmTimer {
    fn drop(&mut self) {
        let callback = self.clock.0.shared.state.lock().queue.remove(self.id);
        // Unlocked: the callback may own the last reference to another timer.
        drop(callback);
    }
}

impl std::fmt::Debug for VmTimer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmTimer")
            .field("name", &self.name)
            .field("deadline", &self.deadline())
            .finish()
    }
}

/// The timers of a clock, the armed ones ordered by deadline.
#[derive(Default)]
pub(crate) struct TimerQueue {
    next_id: u64,
    timers: HashMap<u64, Entry>,
    armed: BTreeSet<(VmInstant, u64)>,
}

struct Entry {
    callback: Callback,
    deadline: Option<VmInstant>,
}

impl TimerQueue {
    fn register(&mut self, callback: Callback) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry {
            callback,
            deadline: None,
        };
        self.timers.insert(id, entry);
        id
    }

    fn arm(&mut self, id: u64, deadline: VmInstant) {
        self.disarm(id);
        if let Some(entry) = self.timers.get_mut(&id) {
            entry.deadline = Some(deadline);
            self.armed.insert((deadline, id));
        }
    }

    fn disarm(&mut self, id: u64) {
        if let Some(entry) = self.timers.get_mut(&id)
            && let Some(deadline) = entry.deadline.take()
        {
            self.armed.remove(&(deadline, id));
        }
    }

    fn remove(&mut self, id: u64) -> Option<Callback> {
        self.disarm(id);
        self.timers.remove(&id).map(|entry| entry.callback)
    }

    fn deadline(&self, id: u64) -> Option<VmInstant> {
        self.timers.get(&id)?.deadline
    }

    /// The earliest deadline.
    pub(crate) fn first(&self) -> Option<VmInstant> {
        let &(deadline, _) = self.armed.first()?;
        Some(deadline)
    }

    /// Disarms the timer with the earliest deadline and returns its callback.
    pub(crate) fn pop_first(&mut self) -> Option<Callback> {
        let (_, id) = self.armed.pop_first()?;
        let entry = self.timers.get_mut(&id)?;
        entry.deadline = None;
        Some(entry.callback.clone())
    }
}
