use crate::VmInstant;
use crate::VmTimer;
use crate::timer::TimerQueue;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;
use std::time::Instant;

/// The clock of one VM, in nanoseconds of guest time. Cheap to clone; all clones are one clock.
///
/// It is created stopped at [`VmInstant::ZERO`]. While it is stopped its time does not change and no
/// timer fires, so a pause of the VM costs the guest no deadline.
///
/// Callbacks of the timers run one at a time on a thread that is spawned when the first timer is armed
/// and ends when the clock and all its timers are gone. They run with no lock of the clock held.
#[derive(Clone)]
pub struct VmClock(pub(crate) Arc<Handle>);

/// Owned by clocks and timers only, so that its drop tells the service thread that nobody is left.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// For the service thread: the next deadline or the running state changed.
    pub(crate) changed: Condvar,
    /// For `stop`: no callback is running any more.
    idle: Condvar,
}

pub(crate) struct State {
    source: Source,
    /// Guest time at the last change of `running` or, on a manual clock, now.
    base: u64,
    running: Running,
    pub(crate) queue: TimerQueue,
    /// The thread a callback is running on.
    in_callback: Option<ThreadId>,
    service: Service,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Source {
    Host,
    Manual,
}

#[derive(Copy, Clone)]
enum Running {
    No,
    Since(Instant),
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Service {
    NotSpawned,
    Spawned,
    Closing,
}

impl State {
    fn now(&self) -> u64 {
        match (self.source, self.running) {
            (Source::Manual, _) | (_, Running::No) => self.base,
            (Source::Host, Running::Since(start)) => {
                let elapsed = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.base.saturating_add(elapsed)
            }
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.running, Running::Since(_))
    }
}

impl Default for VmClock {
    fn default() -> Self {
        Self::new()
    }
}

impl VmClock {
    /// A clock that follows the host's monotonic clock while it is started.
    pub fn new() -> Self {
        Self::with_source(Source::Host)
    }

    /// A clock that moves, while it is started, only when the returned handle advances it.
    ///
    /// Callbacks of its timers run on the thread that advances it.
    pub fn manual() -> (Self, ManualTime) {
        let clock = Self::with_source(Source::Manual);
        (clock.clone(), ManualTime(clock))
    }

    fn with_source(source: Source) -> Self {
        let shared = Shared {
            state: Mutex::new(State {
                source,
                base: 0,
                running: Running::No,
                queue: TimerQueue::default(),
                in_callback: None,
                service: Service::NotSpawned,
            }),
            changed: Condvar::new(),
            idle: Condvar::new(),
        };
        Self(Arc::new(Handle {
            shared: Arc::new(shared),
        }))
    }

    /// The guest time.
    pub fn now(&self) -> VmInstant {
        VmInstant::from_nanos(self.0.shared.state.lock().now())
    }

    /// Whether the clock runs.
    pub fn is_running(&self) -> bool {
        self.0.shared.state.lock().is_running()
    }

    /// Lets time pass. Nothing happens if it does already.
    pub fn start(&self) {
        let shared = &self.0.shared;
        let mut state = shared.state.lock();
        if !state.is_running() {
            state.running = Running::Since(Instant::now());
            shared.serve(&mut state);
        }
    }

    /// Freezes the time. Afterwards no callback runs: one that had begun has ended, unless `stop` is
    /// called by that callback.
    ///
    /// The caller must not hold a lock that a callback takes.
    pub fn stop(&self) {
        let shared = &self.0.shared;
        let mut state = shared.state.lock();
        state.base = state.now();
        state.running = Running::No;
        let this = std::thread::current().id();
        while state.in_callback.is_some_and(|thread| thread != this) {
            shared.idle.wait(&mut state);
        }
    }

    /// Sets the guest time, for a restored VM. Timers keep their deadlines.
    ///
    /// The clock must be stopped; on a running clock the time jumps, and timers that became due fire.
    pub fn set(&self, now: VmInstant) {
        let shared = &self.0.shared;
        let mut state = shared.state.lock();
        state.base = now.as_nanos();
        if state.is_running() {
            state.running = Running::Since(Instant::now());
            shared.serve(&mut state);
        }
    }

    /// A timer that calls `callback`. It is not armed. `name` is for logs.
    pub fn new_timer(
        &self,
        name: impl Into<Arc<str>>,
        callback: impl Fn() + Send + Sync + 'static,
    ) -> VmTimer {
        VmTimer::new(self.clone(), name.into(), Arc::new(callback))
    }
}

impl std::fmt::Debug for VmClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.shared.state.lock();
        f.debug_struct("VmClock")
            .field("now_ns", &state.now())
            .field("running", &state.is_running())
            .finish()
    }
}

/// Moves a clock made by [`VmClock::manual`].
#[derive(Debug)]
pub struct ManualTime(VmClock);

impl ManualTime {
    /// Lets `duration` pass for the guest, and runs the callbacks of the timers that become due, each at
    /// its deadline and in their order. While the clock is stopped nothing happens.
    pub fn advance(&self, duration: Duration) {
        let shared = &self.0.0.shared;
        let mut state = shared.state.lock();
        let end = VmInstant::from_nanos(state.base).saturating_add(duration);
        while state.is_running() {
            let Some(deadline) = state.queue.first().filter(|first| *first <= end) else {
                state.base = end.as_nanos().max(state.base);
                return;
            };
            state.base = state.base.max(deadline.as_nanos());
            shared.run_first(&mut state);
        }
    }
}

impl Shared {
    /// Makes the service thread look at the queue, if there is something in it to wait for.
    pub(crate) fn serve(self: &Arc<Self>, state: &mut State) {
        if state.source == Source::Manual || !state.is_running() || state.queue.first().is_none() {
            return;
        }
        if state.service == Service::Spawned {
            self.changed.notify_one();
            return;
        }
        let shared = self.clone();
        let spawned = std::thread::Builder::new()
            .name("vmtime".into())
            .spawn(move || shared.service());
        match spawned {
            Ok(_) => state.service = Service::Spawned,
            // The next timer to be armed tries again.
            Err(error) => tracing::error!(%error, "cannot spawn the timer thread"),
        }
    }

    fn service(&self) {
        let mut state = self.state.lock();
        while state.service != Service::Closing {
            let first = state.queue.first().filter(|_| state.is_running());
            let Some(deadline) = first else {
                self.changed.wait(&mut state);
                continue;
            };
            let now = VmInstant::from_nanos(state.now());
            if deadline > now {
                let wait = deadline.saturating_duration_since(now);
                self.changed.wait_for(&mut state, wait);
            } else {
                self.run_first(&mut state);
            }
        }
    }

    /// Runs the callback of the first timer in the queue, unlocked.
    fn run_first(&self, state: &mut parking_lot::MutexGuard<'_, State>) {
        let Some(callback) = state.queue.pop_first() else {
            return;
        };
        let outer = state.in_callback.replace(std::thread::current().id());
        parking_lot::MutexGuard::unlocked(state, || {
            callback();
            // It may hold the last reference to something whose drop needs the clock.
            drop(callback);
        });
        state.in_callback = outer;
        if outer.is_none() {
            self.idle.notify_all();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.service = Service::Closing;
        self.shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc;

    #[test]
    fn time_passes_only_while_started() {
        let clock = VmClock::new();
        assert_eq!(clock.now(), VmInstant::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), VmInstant::ZERO);
        clock.start();
        while clock.now() == VmInstant::ZERO {}
        clock.stop();
        let stopped = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), stopped);
        clock.start();
        assert!(clock.now() >= stopped);
    }

    #[test]
    fn time_can_be_set_while_stopped() {
        let clock = VmClock::new();
        clock.set(VmInstant::from_nanos(1 << 40));
        assert_eq!(clock.now().as_nanos(), 1 << 40);
        clock.start();
        assert!(clock.now().as_nanos() >= 1 << 40);
    }

    #[test]
    fn no_thread_without_a_timer() {
        let clock = VmClock::new();
        clock.start();
        let _timer = clock.new_timer("t", || ());
        assert!(clock.0.shared.state.lock().service == Service::NotSpawned);
    }

    #[test]
    fn a_timer_fires_on_the_service_thread() {
        let clock = VmClock::new();
        let (send, receive) = mpsc::channel();
        let this = clock.clone();
        let timer = clock.new_timer("t", move || {
            let _ = send.send((this.now(), std::thread::current().id()));
        });
        let deadline = VmInstant::from_nanos(3_000_000);
        timer.arm(deadline);
        clock.start();
        let (fired, thread) = receive.recv().unwrap();
        assert!(fired >= deadline);
        assert_ne!(thread, std::thread::current().id());
        // Armed again from scratch, with a deadline in the past.
        timer.arm(VmInstant::ZERO);
        receive.recv().unwrap();
    }

    #[test]
    fn an_earlier_deadline_overtakes() {
        let clock = VmClock::new();
        clock.start();
        let (send, receive) = mpsc::channel();
        let late = clock.new_timer("late", || ());
        late.arm(VmInstant::MAX);
        let early = clock.new_timer("early", move || {
            let _ = send.send(());
        });
        early.arm(clock.now().saturating_add(Duration::from_millis(1)));
        receive.recv().unwrap();
    }

    #[test]
    fn nothing_fires_while_stopped() {
        let clock = VmClock::new();
        clock.start();
        let count = Arc::new(AtomicUsize::new(0));
        let timer = {
            let count = count.clone();
            clock.new_timer("t", move || {
                count.fetch_add(1, Ordering::SeqCst);
            })
        };
        for _ in 0..200 {
            timer.arm(clock.now().saturating_add(Duration::from_micros(20)));
            std::thread::yield_now();
            clock.stop();
            let before = count.load(Ordering::SeqCst);
            std::thread::yield_now();
            assert_eq!(count.load(Ordering::SeqCst), before);
            clock.start();
        }
    }

    #[test]
    fn stop_from_a_callback_does_not_deadlock() {
        let clock = VmClock::new();
        let (send, receive) = mpsc::channel();
        let timer = {
            let stopped = clock.clone();
            clock.new_timer("t", move || {
                stopped.stop();
                let _ = send.send(());
            })
        };
        timer.arm(VmInstant::ZERO);
        clock.start();
        receive.recv().unwrap();
        assert!(!clock.is_running());
    }

    #[test]
    fn stop_waits_for_a_callback() {
        let clock = VmClock::new();
        let (begun, wait_begun) = mpsc::channel();
        let done = Arc::new(AtomicUsize::new(0));
        let timer = {
            let done = done.clone();
            clock.new_timer("t", move || {
                let _ = begun.send(());
                std::thread::sleep(Duration::from_millis(20));
                done.store(1, Ordering::SeqCst);
            })
        };
        timer.arm(VmInstant::ZERO);
        clock.start();
        wait_begun.recv().unwrap();
        clock.stop();
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_manual_clock_fires_in_order_and_at_the_deadlines() {
        let (clock, time) = VmClock::manual();
        let log = Arc::new(Mutex::new(Vec::new()));
        let timers: Vec<_> = [("b", 20), ("a", 10), ("c", 40)]
            .into_iter()
            .map(|(name, at)| {
                let (log, now) = (log.clone(), clock.clone());
                let timer = clock.new_timer(name, move || {
                    log.lock().push((name, now.now().as_nanos()));
                });
                timer.arm(VmInstant::from_nanos(at));
                timer
            })
            .collect();
        time.advance(Duration::from_nanos(100));
        assert_eq!(clock.now(), VmInstant::ZERO, "stopped");
        clock.start();
        time.advance(Duration::from_nanos(30));
        assert_eq!(*log.lock(), [("a", 10), ("b", 20)]);
        timers[2].disarm();
        time.advance(Duration::from_nanos(30));
        assert_eq!(log.lock().len(), 2);
        assert_eq!(clock.now().as_nanos(), 60);
    }

    #[test]
    fn a_callback_may_arm_its_own_timer() {
        let (clock, time) = VmClock::manual();
        clock.start();
        let slot: Arc<Mutex<Option<VmTimer>>> = Arc::default();
        let count = Arc::new(AtomicUsize::new(0));
        let timer = {
            let (slot, count, now) = (Arc::downgrade(&slot), count.clone(), clock.clone());
            clock.new_timer("t", move || {
                count.fetch_add(1, Ordering::SeqCst);
                let next = now.now().saturating_add(Duration::from_nanos(10));
                if let Some(timer) = slot.upgrade()
                    && let Some(timer) = &*timer.lock()
                {
                    timer.arm(next);
                }
            })
        };
        timer.arm(VmInstant::from_nanos(10));
        *slot.lock() = Some(timer);
        time.advance(Duration::from_nanos(100));
        assert_eq!(count.load(Ordering::SeqCst), 10);
    }

    #[test]
    fn the_service_thread_ends_with_the_clock() {
        let clock = VmClock::new();
        clock.start();
        let timer = clock.new_timer("t", || ());
        timer.arm(VmInstant::MAX);
        let shared = Arc::downgrade(&clock.0.shared);
        drop((clock, timer));
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
