//! Stores the changes of a chip on a thread.

use crate::BLOCK_SIZE;
use crate::queue::Block;
use crate::queue::Queue;
use crate::queue::Step;
use crate::storage::Atomicity;
use crate::storage::FlashStorage;
use crate::storage::Update;
use error_chain::Chain;
use log_limit::LogLimit;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// Firmware writes a variable byte by byte. Changes are stored when there is no further one for this long.
const QUIET: Duration = Duration::from_millis(50);

/// Changes are stored after this time even if there are further ones.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// The delay before the next attempt after a failure. It doubles with each further failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// The maximum number of steps in the queue. If there are more, the guest waits, and then the steps are merged, which
/// loses their order.
const MAX_STEPS: usize = 512;

/// How long the guest waits for a slow storage.
const MAX_STALL: Duration = Duration::from_millis(100);

/// The changes of a chip could not be stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot save the firmware variables of `{name}` in {storage}: {error}")]
pub struct FlushError {
    name: String,
    storage: String,
    error: String,
}

/// The state of a chip's storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlashStatus {
    /// The name of the storage.
    pub storage: String,
    /// The number of blocks with changes that are not durable yet.
    pub pending_blocks: usize,
    /// The number of successful attempts to store changes.
    pub persisted: u64,
    /// The number of failed attempts.
    pub failures: u64,
    /// The error of the last attempt, if it failed.
    pub last_error: Option<String>,
    /// How often changes were merged because there were too many.
    pub reordered: u64,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// The number of the last change that is durable.
    durable: u64,
    /// The times of the oldest and the latest change in the queue.
    waiting: Option<(Instant, Instant)>,
    in_flight: bool,
    /// The number of attempts that were started.
    attempts: u64,
    /// The number of the last attempt that failed.
    failed_attempt: u64,
    retry: Option<(Instant, Duration)>,
    flush: bool,
    stopping: bool,
    stopped: bool,
    /// The guest has waited in vain. It does not wait again until a step was stored.
    stalled: bool,
    persisted: u64,
    failures: u64,
    last_error: Option<String>,
    reordered: u64,
}

struct Shared {
    name: String,
    storage: String,
    atomicity: Atomicity,
    state: Mutex<State>,
    /// Wakes the thread.
    wake: Condvar,
    /// Wakes those that wait for the thread.
    progress: Condvar,
    reorder_log: LogLimit,
}

/// Controls the storage of a chip. Cheap to clone; it may be used on any thread, and after the device was dropped.
#[derive(Clone)]
pub struct FlashControl(Arc<Shared>);

impl FlashControl {
    /// Waits until all changes so far are durable, or an attempt to store them has failed. Further attempts are made in
    /// the background.
    pub fn flush(&self) -> Result<(), FlushError> {
        let shared = &self.0;
        let mut state = shared.state.lock();
        let goal = state.queue.changes();
        let attempts = state.attempts;
        while state.durable < goal {
            if state.stopped || state.failed_attempt > attempts {
                return Err(FlushError {
                    name: shared.name.clone(),
                    storage: shared.storage.clone(),
                    error: state.last_error.clone().unwrap_or_default(),
                });
            }
            state.flush = true;
            shared.wake.notify_one();
            shared.progress.wait(&mut state);
        }
        Ok(())
    }

    /// The state of the storage.
    pub fn status(&self) -> FlashStatus {
        let state = self.0.state.lock();
        let blocks = state.queue.blocks();
        FlashStatus {
            storage: self.0.storage.clone(),
            // The step that is being stored is not in the queue.
            pending_blocks: blocks.max(usize::from(state.in_flight)),
            persisted: state.persisted,
            failures: state.failures,
            last_error: state.last_error.clone(),
            reordered: state.reordered,
        }
    }
}

/// Queues changes, and stores them in the background.
pub(crate) struct Persister {
    control: FlashControl,
    thread: Option<JoinHandle<()>>,
}

impl Persister {
    /// `image` is the content of the storage.
    pub(crate) fn new(name: &str, image: Vec<u8>, storage: impl FlashStorage) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.into(),
            storage: storage.describe(),
            atomicity: storage.atomicity(),
            state: Mutex::default(),
            wake: Condvar::new(),
            progress: Condvar::new(),
            reorder_log: LogLimit::new(),
        });
        let worker = Worker {
            shared: shared.clone(),
            image,
            storage,
        };
        let thread = std::thread::Builder::new()
            .name(format!("flash-{name}"))
            .spawn(move || worker.run())?;
        Ok(Self {
            control: FlashControl(shared),
            thread: Some(thread),
        })
    }

    pub(crate) fn control(&self) -> &FlashControl {
        &self.control
    }

    /// See [`Queue::change`].
    pub(crate) fn change(
        &self,
        index: usize,
        current: impl FnOnce(&mut [u8; BLOCK_SIZE]),
        apply: impl FnOnce(&mut [u8; BLOCK_SIZE]),
    ) {
        self.add(|queue| queue.change(index, current, apply));
    }

    /// See [`Queue::change_together`].
    pub(crate) fn change_together(&self, blocks: BTreeMap<usize, Block>) {
        self.add(|queue| queue.change_together(blocks));
    }

    fn add(&self, change: impl FnOnce(&mut Queue)) {
        let shared = &self.control.0;
        let mut state = shared.state.lock();
        let steps = state.queue.len();
        change(&mut state.queue);
        let now = Instant::now();
        let oldest = state.waiting.map_or(now, |(oldest, _)| oldest);
        state.waiting = Some((oldest, now));
        // With steps in the queue the thread already has a timeout.
        if state.queue.len() != steps {
            shared.wake.notify_one();
        }
        if state.queue.len() <= MAX_STEPS {
            return;
        }
        if shared.atomicity == Atomicity::Image {
            state.queue.merge();
            return;
        }
        let deadline = now + MAX_STALL;
        while state.queue.len() > MAX_STEPS && state.last_error.is_none() && !state.stalled {
            if shared.progress.wait_until(&mut state, deadline).timed_out() {
                state.stalled = true;
            }
        }
        if state.queue.len() > MAX_STEPS {
            state.queue.merge();
            state.reordered += 1;
            if let Some(suppressed) = shared.reorder_log.allow() {
                tracing::warn!(
                    name = shared.name,
                    storage = shared.storage,
                    suppressed,
                    "too many changes of flash wait for its storage; a crash now may leave it inconsistent"
                );
            }
        }
    }

    /// Stores queued changes without further delay, and does not wait for that.
    pub(crate) fn start_flush(&self) {
        let mut state = self.control.0.state.lock();
        if !state.queue.is_empty() {
            state.flush = true;
            self.control.0.wake.notify_one();
        }
    }
}

/// Makes a last attempt to store queued changes, and closes the storage.
impl Drop for Persister {
    fn drop(&mut self) {
        self.control.0.state.lock().stopping = true;
        self.control.0.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(
                name = self.control.0.name,
                "the storage thread of flash panicked"
            );
        }
    }
}

struct Worker<S> {
    shared: Arc<Shared>,
    /// The content of the storage, including changes that are being stored.
    image: Vec<u8>,
    storage: S,
}

impl<S: FlashStorage> Worker<S> {
    fn run(mut self) {
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        loop {
            if state.queue.is_empty() {
                state.flush = false;
                if state.stopping {
                    break;
                }
                shared.wake.wait(&mut state);
                continue;
            }
            if let Some(due) = self.due(&state)
                && due > Instant::now()
            {
                shared.wake.wait_until(&mut state, due);
                continue;
            }
            if shared.atomicity == Atomicity::Image {
                state.queue.merge();
            }
            let Some(step) = state.queue.take_first() else {
                continue;
            };
            if state.queue.is_empty() {
                state.waiting = None;
            }
            state.in_flight = true;
            state.attempts += 1;
            drop(state);
            let result = self.persist(&step);
            state = shared.state.lock();
            state.in_flight = false;
            let last_attempt = state.stopping;
            match result {
                Ok(()) => self.succeeded(&mut state, &step),
                Err(error) => self.failed(&mut state, step, &*error),
            }
            if state.last_error.is_some() && last_attempt {
                break;
            }
            shared.progress.notify_all();
        }
        state.stopped = true;
        shared.progress.notify_all();
    }

    /// When to store the first step; `None` means at once.
    fn due(&self, state: &State) -> Option<Instant> {
        if state.flush || state.stopping {
            return None;
        }
        if let Some((at, _)) = state.retry {
            return Some(at);
        }
        // All steps except the last are complete.
        if self.shared.atomicity == Atomicity::Block && state.queue.len() > 1 {
            return None;
        }
        let (oldest, latest) = state.waiting?;
        Some((latest + QUIET).min(oldest + MAX_DELAY))
    }

    fn persist(&mut self, step: &Step) -> Result<(), crate::storage::FlashStorageError> {
        for (index, block) in &step.blocks {
            let start = index * BLOCK_SIZE;
            self.image[start..start + BLOCK_SIZE].copy_from_slice(&block[..]);
        }
        let blocks: Vec<_> = step.blocks.keys().copied().collect();
        self.storage.persist(Update {
            image: &self.image,
            blocks: &blocks,
        })
    }

    fn succeeded(&self, state: &mut State, step: &Step) {
        state.durable = step.last_change;
        state.persisted += 1;
        state.retry = None;
        state.stalled = false;
        if state.last_error.take().is_some() {
            let shared = &self.shared;
            tracing::info!(
                name = shared.name,
                storage = shared.storage,
                "saving the firmware variables succeeded again"
            );
        }
    }

    fn failed(&self, state: &mut State, step: Step, error: &(dyn std::error::Error + 'static)) {
        state.queue.put_back(step);
        state.failures += 1;
        state.failed_attempt = state.attempts;
        state.flush = false;
        let now = Instant::now();
        state.waiting.get_or_insert((now, now));
        let delay = match state.retry {
            None => FIRST_RETRY,
            Some((_, delay)) => (delay * 2).min(LAST_RETRY),
        };
        state.retry = Some((now + delay, delay));
        let text = Chain(error).to_string();
        if state.last_error.as_ref() != Some(&text) {
            tracing::error!(
                name = self.shared.name,
                storage = self.shared.storage,
                error = text,
                "cannot save the firmware variables; the guest continues, and saving is tried again"
            );
        }
        state.last_error = Some(text);
    }
}

#[cfg(test)]
#[path = "persister_test.rs"]
mod tests;
