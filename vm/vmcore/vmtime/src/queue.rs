use crate::VmInstant;
use slab::Slab;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) type Callback = Arc<dyn Fn() + Send + Sync>;

/// The timers of a clock, the armed ones ordered by deadline.
#[derive(Default)]
pub(crate) struct TimerQueue {
    timers: Slab<Entry>,
    armed: BTreeSet<(VmInstant, usize)>,
}

struct Entry {
    callback: Callback,
    deadline: Option<VmInstant>,
}

impl TimerQueue {
    pub(crate) fn register(&mut self, callback: Callback) -> usize {
        self.timers.insert(Entry {
            callback,
            deadline: None,
        })
    }

    pub(crate) fn arm(&mut self, id: usize, deadline: VmInstant) {
        self.disarm(id);
        if let Some(entry) = self.timers.get_mut(id) {
            entry.deadline = Some(deadline);
            self.armed.insert((deadline, id));
        }
    }

    pub(crate) fn disarm(&mut self, id: usize) {
        if let Some(entry) = self.timers.get_mut(id)
            && let Some(deadline) = entry.deadline.take()
        {
            self.armed.remove(&(deadline, id));
        }
    }

    pub(crate) fn remove(&mut self, id: usize) -> Option<Callback> {
        self.disarm(id);
        self.timers.try_remove(id).map(|entry| entry.callback)
    }

    pub(crate) fn deadline(&self, id: usize) -> Option<VmInstant> {
        self.timers.get(id)?.deadline
    }

    /// The earliest deadline.
    pub(crate) fn first(&self) -> Option<VmInstant> {
        let &(deadline, _) = self.armed.first()?;
        Some(deadline)
    }

    /// Disarms the timer with the earliest deadline and returns its callback.
    pub(crate) fn pop_first(&mut self) -> Option<Callback> {
        let (_, id) = self.armed.pop_first()?;
        let entry = self.timers.get_mut(id)?;
        entry.deadline = None;
        Some(entry.callback.clone())
    }
}
