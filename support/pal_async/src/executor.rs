//! The run queue and the list of tasks, shared by a pool and its drivers.

use crate::JoinError;
use crate::Task;
use crate::TaskInfo;
use crate::task::panicked;
use futures::FutureExt;
use futures::future::Either;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

pub(crate) struct Executor {
    queue: smol::Executor<'static>,
    tasks: Mutex<TaskList>,
    /// Closed to stop. Nothing is ever sent, and both ends live as long as the executor.
    stop: (
        async_channel::Sender<Infallible>,
        async_channel::Receiver<Infallible>,
    ),
}

#[derive(Default)]
struct TaskList {
    stopped: bool,
    next_id: u64,
    tasks: BTreeMap<u64, Arc<str>>,
}

/// Lists a task for as long as it lives.
pub(crate) struct Registration {
    executor: Arc<Executor>,
    id: u64,
}

impl TaskList {
    fn add(&mut self, name: Arc<str>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.tasks.insert(id, name);
        id
    }
}

impl Executor {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: smol::Executor::new(),
            tasks: Mutex::default(),
            stop: async_channel::bounded(1),
        })
    }

    /// The tasks that are alive, oldest first.
    pub(crate) fn tasks(&self) -> Vec<TaskInfo> {
        let list = self.tasks.lock();
        list.tasks
            .iter()
            .map(|(id, name)| TaskInfo {
                id: *id,
                name: name.clone(),
            })
            .collect()
    }

    /// Lists a task that does not run here.
    pub(crate) fn register(self: &Arc<Self>, name: Arc<str>) -> Registration {
        Registration {
            id: self.tasks.lock().add(name),
            executor: self.clone(),
        }
    }

    pub(crate) fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        name: Arc<str>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        // The lock is held until the task is queued: the last thread of the pool either finds it there
        // or has set `stopped` before.
        let mut list = self.tasks.lock();
        if list.stopped {
            drop(list);
            return Task::never_ran(name);
        }
        let registration = Registration {
            id: list.add(name.clone()),
            executor: self.clone(),
        };
        let task = self.queue.spawn({
            let name = name.clone();
            async move {
                let registration = registration;
                let stop = registration.executor.stop.1.recv();
                let work = AssertUnwindSafe(future).catch_unwind();
                match futures::future::select(pin!(stop), pin!(work)).await {
                    Either::Left(_) => Err(JoinError::Cancelled { name }),
                    Either::Right((result, _)) => {
                        result.map_err(|payload| panicked(name, &*payload))
                    }
                }
            }
        });
        Task::new(name, task)
    }

    /// Runs tasks until `future` completes.
    pub(crate) async fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.queue.run(future).await
    }

    /// Runs tasks until [`Executor::stop`].
    pub(crate) async fn run_until_stopped(&self) {
        let _closed = self.run(self.stop.1.recv()).await;
    }

    /// Refuses new tasks and tells those that are alive to end.
    pub(crate) fn stop(&self) {
        self.tasks.lock().stopped = true;
        self.stop.0.close();
    }

    /// After [`Executor::stop`], when no other thread runs tasks: runs each task so that it ends.
    pub(crate) async fn drain(&self) {
        // Every task waits for the stop signal, so each is in the queue now or was dropped.
        while !self.queue.is_empty() {
            self.queue.tick().await;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.executor.tasks.lock().tasks.remove(&self.id);
    }
}
