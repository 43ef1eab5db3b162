//! The thread that makes a chip's content durable.

use crate::BLOCK_SIZE;
use crate::queue::Block;
use crate::queue::Queue;
use crate::queue::Step;
use crate::storage::Atomicity;
use crate::storage::FlashStorage;
use crate::storage::Update;
use error_chain::Chain;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// Firmware writes a variable byte by byte. Once it pauses for this long, what it wrote is made durable.
const QUIET: Duration = Duration::from_millis(50);

/// It is made durable after this long even if it does not pause.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// After a failure, the next attempt is made this much later, and then twice as late each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// How many steps may wait for the storage. A guest that is this far ahead is made to wait, and past that the
/// order of the steps is given up.
const MAX_STEPS: usize = 512;

/// How long a guest is made to wait for a storage that is slow.
const PATIENCE: Duration = Duration::from_millis(100);

/// Why a chip's content is not durable.
#[derive(Debug, thiserror::Error)]
#[error("the firmware variables of {name} are not saved in {storage}: {error}")]
pub struct FlushError {
    name: String,
    storage: String,
    error: String,
}

/// How far a chip's content is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlashStatus {
    /// Where it is kept.
    pub storage: String,
    /// Blocks whose change is not durable yet.
    pub pending_blocks: usize,
    /// How often something was made durable.
    pub persisted: u64,
    /// How many attempts failed.
    pub failures: u64,
    /// Why the last attempt failed, unless one has succeeded since.
    pub last_error: Option<String>,
    /// How often the order of changes was given up because too many of them waited.
    pub reordered: u64,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// The number of the last change that is durable.
    durable: u64,
    /// When the oldest and the latest of the waiting changes were made.
    waiting: Option<(Instant, Instant)>,
    in_flight: bool,
    /// Attempts that have begun.
    attempts: u64,
    /// The last attempt that failed.
    failed_attempt: u64,
    retry: Option<(Instant, Duration)>,
    flush: bool,
    stopping: bool,
    stopped: bool,
    /// The guest has waited, in vain; it does not wait again until there is room.
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
    /// There is something for the thread to do.
    wake: Condvar,
    /// The thread has done something.
    progress: Condvar,
}

/// Asks for a chip's content to be made durable. Cheap to clone; it may be used from any thread, and after
/// the device is gone.
#[derive(Clone)]
pub struct FlashControl(Arc<Shared>);

impl FlashControl {
    /// Waits until every change made so far is durable, or an attempt at that has failed. Later attempts follow in
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

    /// How far the content is durable.
    pub fn status(&self) -> FlashStatus {
        let state = self.0.state.lock();
        let blocks = state.queue.blocks();
        FlashStatus {
            storage: self.0.storage.clone(),
            // A step that is being written is in nobody's queue.
            pending_blocks: blocks.max(usize::from(state.in_flight)),
            persisted: state.persisted,
            failures: state.failures,
            last_error: state.last_error.clone(),
            reordered: state.reordered,
        }
    }
}

impl std::fmt::Debug for FlashControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FlashControl").field(&self.0.name).finish()
    }
}

/// Takes changes, and makes them durable in the background.
#[derive(Debug)]
pub(crate) struct Persister {
    control: FlashControl,
    thread: Option<JoinHandle<()>>,
}

impl Persister {
    /// `image` is what the storage holds.
    pub(crate) fn new(name: &str, image: Vec<u8>, storage: impl FlashStorage) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.into(),
            storage: storage.describe(),
            atomicity: storage.atomicity(),
            state: Mutex::default(),
            wake: Condvar::new(),
            progress: Condvar::new(),
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
        // The thread looks at the time itself while there is something to do.
        if state.queue.len() != steps {
            shared.wake.notify_one();
        }
        if state.queue.len() <= MAX_STEPS {
            return;
        }
        if shared.atomicity == Atomicity::Image {
            state.queue.collapse();
            return;
        }
        let deadline = now + PATIENCE;
        while state.queue.len() > MAX_STEPS && state.last_error.is_none() && !state.stalled {
            if shared.progress.wait_until(&mut state, deadline).timed_out() {
                state.stalled = true;
            }
        }
        if state.queue.len() > MAX_STEPS {
            state.queue.collapse();
            state.reordered += 1;
            if state.reordered.is_power_of_two() {
                tracing::warn!(
                    name = shared.name,
                    storage = shared.storage,
                    times = state.reordered,
                    "too many changes of flash wait for its storage; a crash now may leave it inconsistent"
                );
            }
        }
    }

    /// Makes what waits durable without further delay, and does not wait for that.
    pub(crate) fn hurry(&self) {
        let mut state = self.control.0.state.lock();
        if !state.queue.is_empty() {
            state.flush = true;
            self.control.0.wake.notify_one();
        }
    }
}

/// Makes a last attempt at what waits, and closes the storage.
impl Drop for Persister {
    fn drop(&mut self) {
        self.control.0.state.lock().stopping = true;
        self.control.0.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(
                name = self.control.0.name,
                "the thread behind flash has died"
            );
        }
    }
}

struct Worker<S> {
    shared: Arc<Shared>,
    /// What the storage holds, or is being given.
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
                state.queue.collapse();
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

    /// When the first step is to be made durable; at once if there is no such time.
    fn due(&self, state: &State) -> Option<Instant> {
        if state.flush || state.stopping {
            return None;
        }
        if let Some((at, _)) = state.retry {
            return Some(at);
        }
        // All steps but the last are complete.
        if self.shared.atomicity == Atomicity::Block && state.queue.len() > 1 {
            return None;
        }
        let (oldest, latest) = state.waiting?;
        Some((latest + QUIET).min(oldest + MAX_DELAY))
    }

    fn persist(&mut self, step: &Step) -> Result<(), crate::storage::StorageError> {
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
                "the firmware variables are being saved again"
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
                "the firmware variables cannot be saved; the guest runs on, and it is tried again"
            );
        }
        state.last_error = Some(text);
    }
}
