//! Queues on a pool of threads, for hosts without io_uring.

use crate::engine;
use crate::engine::OpenFile;
use crate::page_cache::PageCache;
use disk_backend::Completion;
use disk_backend::DiskError;
use disk_backend::DiskOperation;
use disk_backend::DiskQueue;
use disk_backend::EventSet;
use log_limit::LogLimit;
use parking_lot::Condvar;
use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The maximum number of threads of a disk, which is also its number of concurrent operations.
const MAX_THREADS: usize = 32;
const STACK: usize = 256 << 10;

/// What a thread does for an operation.
type Work = Box<dyn FnOnce() -> Result<(), DiskError> + Send>;

struct Task {
    token: u64,
    work: Work,
    results: Arc<Results>,
}

/// The results of a queue's tasks.
struct Results {
    completed: Mutex<Vec<Completion>>,
    /// Signalled when `completed` becomes non-empty.
    event: OwnedFd,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    threads: usize,
    idle: usize,
    closed: bool,
}

struct Shared {
    /// The name of the disk in messages.
    disk: String,
    state: Mutex<State>,
    changed: Condvar,
    log_limit: LogLimit,
}

/// The threads of one disk, started when they are needed and stopped when this is dropped.
pub(crate) struct Pool(Arc<Shared>);

impl Pool {
    /// A pool for the disk called `disk` in messages.
    pub(crate) fn new(disk: &str) -> Self {
        Self(Arc::new(Shared {
            disk: disk.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
            log_limit: LogLimit::new(),
        }))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn run(task: Task) {
        // The memory is released before the completion is reported.
        let result = (task.work)();
        let token = task.token;
        task.results.push(Completion { token, result });
    }

    fn run_tasks(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                Self::run(task);
                state = self.state.lock();
            } else if state.closed {
                break;
            } else {
                state.idle += 1;
                self.changed.wait(&mut state);
                state.idle -= 1;
            }
        }
        state.threads -= 1;
    }

    fn start(self: &Arc<Self>, task: Task) {
        let mut state = self.state.lock();
        state.tasks.push_back(task);
        if state.idle >= state.tasks.len() || state.threads == MAX_THREADS {
            drop(state);
            self.changed.notify_one();
            return;
        }
        state.threads += 1;
        let shared = self.clone();
        let thread = std::thread::Builder::new()
            .name("disk-io".into())
            .stack_size(STACK)
            .spawn(move || shared.run_tasks());
        if let Err(error) = thread {
            if let Some(suppressed) = self.log_limit.allow() {
                let disk = &self.disk;
                tracing::warn!(disk, %error, suppressed, "failed to start a disk thread");
            }
            state.threads -= 1;
            // Without any thread, the caller performs the task.
            let task = match state.threads {
                0 => state.tasks.pop_back(),
                _ => None,
            };
            drop(state);
            match task {
                Some(task) => Self::run(task),
                None => drop(self.changed.notify_one()),
            }
        }
    }
}

impl Results {
    fn push(&self, completion: Completion) {
        let mut completed = self.completed.lock();
        completed.push(completion);
        if completed.len() == 1
            && let Err(error) = rustix::io::write(&self.event, &1u64.to_ne_bytes())
        {
            tracing::error!(%error, "failed to signal the completion of disk I/O");
        }
    }
}

/// The operations of a disk queue on a pool.
pub(crate) struct PoolQueue {
    pool: Arc<Pool>,
    events: EventSet,
    results: Arc<Results>,
    in_flight: usize,
}

impl PoolQueue {
    pub(crate) fn open(pool: Arc<Pool>, events: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mut all = events.to_vec();
        all.push(event.as_fd());
        Ok(Self {
            pool,
            events: EventSet::new(&all)?,
            results: Arc::new(Results {
                completed: Mutex::default(),
                event,
            }),
            in_flight: 0,
        })
    }

    /// Starts an operation.
    pub(crate) fn start(
        &mut self,
        token: u64,
        work: impl FnOnce() -> Result<(), DiskError> + Send + 'static,
    ) {
        self.in_flight += 1;
        self.pool.0.start(Task {
            token,
            work: Box::new(work),
            results: self.results.clone(),
        });
    }

    /// As [`DiskQueue::poll`].
    pub(crate) fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let mut completed = self.results.completed.lock();
        self.in_flight -= completed.len();
        completions.append(&mut completed);
        Ok(())
    }

    /// As [`DiskQueue::wait`].
    pub(crate) fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let before = completions.len();
        self.poll(completions)?;
        if completions.len() == before {
            self.events.wait()?;
            self.poll(completions)?;
        }
        Ok(())
    }
}

impl Drop for PoolQueue {
    fn drop(&mut self) {
        let mut completions = Vec::new();
        while self.in_flight != 0 {
            if let Err(error) = self.wait(&mut completions) {
                // The tasks keep their memory mapped themselves.
                tracing::error!(%error, "failed to wait for disk I/O");
                break;
            }
        }
    }
}

/// A queue of a raw disk on a pool.
pub(crate) struct ThreadsQueue {
    file: Arc<OpenFile>,
    queue: PoolQueue,
    completed: Vec<Completion>,
    page_cache: PageCache,
}

impl ThreadsQueue {
    pub(crate) fn open(
        file: Arc<OpenFile>,
        pool: Arc<Pool>,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        Ok(Self {
            file,
            queue: PoolQueue::open(pool, events)?,
            completed: Vec::new(),
            page_cache: PageCache::default(),
        })
    }
}

impl DiskQueue for ThreadsQueue {
    fn submit(&mut self, token: u64, operation: DiskOperation) {
        let mut job = match self.file.begin(operation) {
            Ok(job) => job,
            Err(result) => {
                self.completed.push(Completion { token, result });
                return;
            }
        };
        if let ControlFlow::Break(result) = self.page_cache.try_read(&self.file, &mut job) {
            self.completed.push(Completion { token, result });
            return;
        }
        let file = self.file.clone();
        self.queue.start(token, move || {
            let result = engine::run(&file.file, &mut job);
            file.end(&job, &result);
            result
        });
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        completions.append(&mut self.completed);
        self.queue.poll(completions)
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        if self.completed.is_empty() {
            return self.queue.wait(completions);
        }
        self.poll(completions)
    }
}
