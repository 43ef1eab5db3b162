//! Queues on a pool of threads, for hosts without io_uring.

use crate::engine;
use crate::engine::OpenFile;
use crate::job::Job;
use crate::page_cache::PageCache;
use disk_backend::Completion;
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
const STACK: usize = 64 << 10;

struct Task {
    token: u64,
    job: Job,
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
    file: Arc<OpenFile>,
    state: Mutex<State>,
    changed: Condvar,
    log_limit: LogLimit,
}

/// The threads of one disk, started when they are needed and stopped when this is dropped.
pub(crate) struct Pool(Arc<Shared>);

impl Pool {
    pub(crate) fn new(file: Arc<OpenFile>) -> Self {
        Self(Arc::new(Shared {
            file,
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
    fn run(&self, mut task: Task) {
        let result = engine::run(&self.file.file, &mut task.job);
        self.file.end(&task.job, &result);
        let token = task.token;
        // The memory is released before the completion is reported.
        drop(task.job);
        task.results.push(Completion { token, result });
    }

    fn run_tasks(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                self.run(task);
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
                let disk = &self.file.info.name;
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
                Some(task) => self.run(task),
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

/// A disk queue on a pool.
pub(crate) struct PoolQueue {
    pool: Arc<Pool>,
    events: EventSet,
    results: Arc<Results>,
    completed: Vec<Completion>,
    page_cache: PageCache,
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
            completed: Vec::new(),
            page_cache: PageCache::default(),
            in_flight: 0,
        })
    }
}

impl DiskQueue for PoolQueue {
    fn submit(&mut self, token: u64, operation: DiskOperation) {
        match self.pool.0.file.begin(operation) {
            Ok(mut job) => {
                if let ControlFlow::Break(result) =
                    self.page_cache.try_read(&self.pool.0.file, &mut job)
                {
                    self.completed.push(Completion { token, result });
                    return;
                }
                self.in_flight += 1;
                let results = self.results.clone();
                let task = Task {
                    token,
                    job,
                    results,
                };
                self.pool.0.start(task);
            }
            Err(result) => self.completed.push(Completion { token, result }),
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        completions.append(&mut self.completed);
        let mut completed = self.results.completed.lock();
        self.in_flight -= completed.len();
        completions.append(&mut completed);
        Ok(())
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
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
