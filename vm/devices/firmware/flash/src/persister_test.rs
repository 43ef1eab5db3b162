use super::*;
use crate::exercise::Record;
use crate::exercise::RecordingStorage;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

fn recording(atomicity: Atomicity) -> (RecordingStorage, Record, Arc<AtomicBool>) {
    let (record, broken) = (Record::default(), Arc::new(AtomicBool::new(false)));
    let storage = RecordingStorage {
        atomicity,
        record: record.clone(),
        broken: broken.clone(),
    };
    (storage, record, broken)
}

/// Changes a byte of each of the first `steps` blocks in turn, of which there are two.
fn change(queue: &mut Queue, steps: usize) {
    for n in 0..steps {
        queue.change(n % 2, |block| block.fill(0xff), |block| block[0] = n as u8);
    }
}

/// When the first step is stored, after the time of the oldest change. `None` means at once.
fn due(
    atomicity: Atomicity,
    steps: usize,
    change_state: impl FnOnce(&mut State, Instant),
) -> Option<Duration> {
    let (storage, ..) = recording(atomicity);
    let worker = Worker {
        shared: Arc::new(Shared {
            name: "chip".into(),
            storage: storage.describe(),
            atomicity,
            state: Mutex::default(),
            wake: Condvar::new(),
            progress: Condvar::new(),
            reorder_log: LogLimit::new(),
        }),
        image: vec![0xff; 2 * BLOCK_SIZE],
        storage,
    };
    let oldest = Instant::now();
    let mut state = State::default();
    change(&mut state.queue, steps);
    state.waiting = Some((oldest, oldest));
    change_state(&mut state, oldest);
    worker.due(&state).map(|at| at - oldest)
}

#[test]
fn changes_wait_for_further_ones_but_not_for_long() {
    let later =
        |delay| move |state: &mut State, oldest| state.waiting = Some((oldest, oldest + delay));
    for atomicity in [Atomicity::Block, Atomicity::Image] {
        assert_eq!(due(atomicity, 1, |_, _| ()), Some(QUIET));
        let soon = Duration::from_millis(900);
        assert_eq!(due(atomicity, 1, later(soon)), Some(soon + QUIET));
        let busy = Duration::from_millis(980);
        assert_eq!(due(atomicity, 1, later(busy)), Some(MAX_DELAY));
    }
    // Nothing is added to a block that another follows; an image has all of them.
    assert_eq!(due(Atomicity::Block, 2, |_, _| ()), None);
    assert_eq!(due(Atomicity::Image, 2, |_, _| ()), Some(QUIET));
}

#[test]
fn a_failure_delays_what_nobody_waits_for() {
    let retry = Duration::from_secs(8);
    let failed = |state: &mut State, oldest: Instant| state.retry = Some((oldest + retry, retry));
    assert_eq!(due(Atomicity::Block, 2, failed), Some(retry));
    let flushed = |state: &mut State, oldest| {
        failed(state, oldest);
        state.flush = true;
    };
    assert_eq!(due(Atomicity::Block, 1, flushed), None);
    let stopping = |state: &mut State, oldest| {
        failed(state, oldest);
        state.stopping = true;
    };
    assert_eq!(due(Atomicity::Block, 1, stopping), None);
}

#[test]
fn a_change_wakes_the_thread_that_stores_it() {
    let (storage, record, _) = recording(Atomicity::Block);
    let persister = Persister::new("chip", vec![0xff; BLOCK_SIZE], storage).unwrap();
    let change = |value| persister.change(0, |block| block.fill(0xff), |block| block[0] = value);
    change(1);
    persister.control().flush().unwrap();
    // The thread waits for a change.
    assert_eq!(record.lock().len(), 1);
    change(2);
    let changed = Instant::now();
    while record.lock().len() == 1 {
        assert!(
            changed.elapsed() < Duration::from_secs(60),
            "nothing is stored"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_flush_that_is_started_does_not_wait_for_the_next_attempt() {
    let (storage, record, broken) = recording(Atomicity::Block);
    broken.store(true, Ordering::Relaxed);
    let persister = Persister::new("chip", vec![0xff; BLOCK_SIZE], storage).unwrap();
    persister.change(0, |block| block.fill(0xff), |block| block[0] = 1);
    // The delay doubles with each: a minute.
    for _ in 0..8 {
        persister.control().flush().unwrap_err();
    }
    broken.store(false, Ordering::Relaxed);
    record.lock().clear();
    let failed = Instant::now();
    persister.start_flush();
    while persister.control().status().persisted == 0 {
        assert!(
            failed.elapsed() < LAST_RETRY / 2,
            "it waits for the next attempt"
        );
        std::thread::yield_now();
    }
    assert_eq!(record.lock().len(), 1);
}

/// Storage that takes nothing until it is told to.
struct Held(Arc<Mutex<()>>, RecordingStorage);

impl FlashStorage for Held {
    fn atomicity(&self) -> Atomicity {
        self.1.atomicity()
    }

    fn persist(&mut self, update: Update<'_>) -> Result<(), crate::storage::FlashStorageError> {
        drop(self.0.lock());
        self.1.persist(update)
    }

    fn describe(&self) -> String {
        self.1.describe()
    }
}

#[test]
fn a_storage_that_takes_nothing_does_not_make_the_queue_endless() {
    for atomicity in [Atomicity::Block, Atomicity::Image] {
        let (storage, record, _) = recording(atomicity);
        let held = Arc::new(Mutex::new(()));
        let storage = Held(held.clone(), storage);
        let persister = Persister::new("chip", vec![0xff; 2 * BLOCK_SIZE], storage).unwrap();
        let holding = held.lock();
        let rounds = 3 * MAX_STEPS;
        for n in 0..rounds {
            persister.change(n % 2, |block| block.fill(0xff), |block| block[0] = n as u8);
            assert!(persister.control.0.state.lock().queue.len() <= MAX_STEPS);
        }
        // An image is stored as a whole: nothing is lost by merging its changes.
        let reordered = persister.control().status().reordered;
        assert_eq!(reordered > 0, atomicity == Atomicity::Block);
        drop(holding);
        persister.control().flush().unwrap();
        let mut image = vec![0xff; 2 * BLOCK_SIZE];
        for (offset, block) in record.lock().iter().flatten() {
            image[*offset as usize..][..BLOCK_SIZE].copy_from_slice(block);
        }
        assert_eq!(image[0], (rounds - 2) as u8);
        assert_eq!(image[BLOCK_SIZE], (rounds - 1) as u8);
    }
}
