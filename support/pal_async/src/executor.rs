//! The run queue, shared by a pool and its drivers.

use crate::JoinError;
use crate::Task;
use crate::task::panicked;
use futures::FutureExt;
use futures::future::Either;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

pub(crate) struct Executor {
    queue: smol::Executor<'static>,
    stopped: Mutex<bool>,
    /// Closed to stop. Nothing is ever sent, and both ends live as long as the executor.
    stop: (
        async_channel::Sender<Infallible>,
        async_channel::Receiver<Infallible>,
    ),
}

impl Executor {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: smol::Executor::new(),
            stopped: Mutex::new(false),
            stop: async_channel::bounded(1),
        })
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        name: Arc<str>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        // The lock is held until the task is queued: the thread that stops the pool either finds the task
        // there or has set `stopped` before.
        let stopped = self.stopped.lock();
        if *stopped {
            return Task::never_ran(name);
        }
        let stop = self.stop.1.clone();
        let task = self.queue.spawn({
            let name = name.clone();
            async move {
                let work = AssertUnwindSafe(future).catch_unwind();
                match futures::future::select(pin!(stop.recv()), pin!(work)).await {
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
        *self.stopped.lock() = true;
        self.stop.0.close();
    }

    /// After [`Executor::stop`]: runs each task so that it ends.
    pub(crate) async fn drain(&self) {
        // Every task waits for the stop signal, so each is in the queue now or was dropped.
        while !self.queue.is_empty() {
            self.queue.tick().await;
        }
    }
}
