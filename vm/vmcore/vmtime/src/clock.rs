use crate::VmInstant;
use crate::queue::TimerQueue;
use log_limit::LogLimit;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;
use std::time::Instant;

/// The clock of one VM, in nanoseconds of guest time. Cheap to clone; all clones are one clock.
///
/// It is created stopped at [`VmInstant::ZERO`]. While it is stopped its time does not change and no
/// timer fires, so a guest misses no deadline while its VM is paused.
///
/// Callbacks of the timers run one at a time on a thread that is spawned when the first timer is armed
/// and ends when the clock and all its timers are dropped. The clock is not locked while a callback runs.
#[derive(Clone)]
pub struct VmClock(pub(crate) Arc<Handle>);

/// Owned by clocks and timers only. Dropping the last one ends the service thread.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Wakes the service thread: the next deadline or the running state changed.
    pub(crate) changed: Condvar,
    /// Wakes `stop`: no callback is running.
    idle: Condvar,
    spawn_errors: LogLimit,
}

pub(crate) struct State {
    source: Source,
    /// Guest time when the clock was last started, stopped or set. On a manual clock, the current time.
    base: u64,
    /// The host time at which `base` was current; `None` while stopped.
    running_since: Option<Instant>,
    pub(crate) queue: TimerQueue,
    /// The thread on which a callback is running.
    in_callback: Option<ThreadId>,
    service: Service,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Source {
    Host,
    Manual,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Service {
    NotSpawned,
    Spawned,
    Closing,
}

impl State {
    fn now(&self) -> u64 {
        match (self.source, self.running_since) {
            (Source::Manual, _) | (_, None) => self.base,
            (Source::Host, Some(start)) => {
                let elapsed = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.base.saturating_add(elapsed)
            }
        }
    }

    fn is_running(&self) -> bool {
        self.running_since.is_some()
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

    /// A clock that, while it is started, moves only when the returned handle advances it.
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
                running_since: None,
                queue: TimerQueue::default(),
                in_callback: None,
                service: Service::NotSpawned,
            }),
            changed: Condvar::new(),
            idle: Condvar::new(),
            spawn_errors: LogLimit::new(),
        };
        Self(Arc::new(Handle {
            shared: Arc::new(shared),
        }))
    }

    /// The guest time.
    pub fn now(&self) -> VmInstant {
        VmInstant::from_nanos(self.0.shared.state.lock().now())
    }

    /// Whether the clock is running.
    pub fn is_running(&self) -> bool {
        self.0.shared.state.lock().is_running()
    }

    /// Starts the clock. No effect if it is running.
    pub fn start(&self) {
        let shared = &self.0.shared;
        let mut state = shared.state.lock();
        if !state.is_running() {
            state.running_since = Some(Instant::now());
            shared.serve(&mut state);
        }
    }

    /// Stops the clock. When it returns, no callback is running, except one that itself calls `stop`.
    ///
    /// The caller must not hold a lock that a callback takes.
    pub fn stop(&self) {
        let shared = &self.0.shared;
        let mut state = shared.state.lock();
        state.base = state.now();
        state.running_since = None;
        let this = std::thread::current().id();
        while state.in_callback.is_some_and(|thread| thread != this) {
            shared.idle.wait(&mut state);
        }
    }

    /// Sets the guest time of a restored VM. Timers keep their deadlines.
    ///
    /// The clock should be stopped. If it is running, timers that become due fire.
    pub fn set(&self, now: VmInstant) {
        let shared = &self.0.shared;
        let mut state = shared.state.lock();
        state.base = now.as_nanos();
        if state.is_running() {
            state.running_since = Some(Instant::now());
            shared.serve(&mut state);
        }
    }
}

/// Moves a clock made by [`VmClock::manual`].
pub struct ManualTime(VmClock);

impl ManualTime {
    /// Advances the guest time by `duration`, and runs the callbacks of the timers that become due, each at
    /// its deadline and in the order of their deadlines. No effect while the clock is stopped.
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
    /// Wakes the service thread, or spawns it, if there is a deadline to wait for.
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
            // Tried again when the next timer is armed, which a guest can do at any rate.
            Err(error) => {
                if let Some(suppressed) = self.spawn_errors.allow() {
                    tracing::error!(%error, suppressed, "cannot spawn the timer thread");
                }
            }
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

    /// Runs the callback of the first timer in the queue, with the clock unlocked.
    fn run_first(&self, state: &mut parking_lot::MutexGuard<'_, State>) {
        let Some(callback) = state.queue.pop_first() else {
            return;
        };
        let outer = state.in_callback.replace(std::thread::current().id());
        parking_lot::MutexGuard::unlocked(state, || {
            callback();
            // Still unlocked: it may hold the last reference to something whose drop locks the clock.
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
#[path = "clock_test.rs"]
mod tests;
