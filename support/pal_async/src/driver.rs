//! The handle by which a program spawns tasks and waits for events.

use crate::PolledFd;
use crate::RegisterError;
use crate::Task;
use crate::Timer;
use crate::executor::Executor;
use crate::task::panicked;
use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

/// Spawns tasks on a pool, and makes timers and watched file descriptors for them. Cheap to clone.
#[derive(Clone)]
pub struct Driver {
    executor: Arc<Executor>,
}

impl Driver {
    pub(crate) fn new(executor: Arc<Executor>) -> Self {
        Self { executor }
    }

    /// Runs `future` on the pool. Names need not be unique.
    ///
    /// When the pool stops, the task is cancelled, and with it any task spawned afterwards.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        self.executor.spawn(name.into(), future)
    }

    /// Runs `work`, which blocks its thread, on a thread made for that on first use.
    ///
    /// Once started it runs to its end, even if the task is cancelled or the pool stops.
    pub fn unblock<T: Send + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Task<T> {
        let name = name.into();
        let task = smol::unblock({
            let name = name.clone();
            move || {
                catch_unwind(AssertUnwindSafe(work)).map_err(|payload| panicked(name, &*payload))
            }
        });
        Task::new(name, task)
    }

    /// A timer that is not set.
    pub fn timer(&self) -> Timer {
        Timer::new()
    }

    /// Waits for `duration`; forever if the clock cannot represent its end.
    pub async fn sleep(&self, duration: Duration) {
        smol::Timer::after(duration).await;
    }

    /// Watches `fd`, a pipe, socket, terminal, eventfd or the like, and makes it non-blocking.
    ///
    /// That holds for every duplicate of the descriptor, also in other processes: do not use it for standard input and
    /// the like. Regular files cannot be watched.
    pub fn polled_fd<T: AsFd>(&self, fd: T) -> Result<PolledFd<T>, RegisterError> {
        PolledFd::new(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DefaultPool;
    use crate::JoinError;
    use futures::FutureExt;
    use std::sync::mpsc;
    use std::time::Instant;

    #[test]
    fn tasks_have_outputs() {
        DefaultPool::run_with(async |driver| {
            let (sender, receiver) = async_channel::bounded::<()>(1);
            let waiting = driver.spawn("waiting", {
                let receiver = receiver.clone();
                async move { receiver.recv().await.is_ok() }
            });
            let also = driver.spawn(String::from("also"), async move {
                receiver.recv().await.is_ok()
            });
            sender.close();
            assert_eq!(waiting.await, Ok(false));
            assert_eq!(also.await, Ok(false));
        });
    }

    #[test]
    fn a_dropped_task_is_cancelled_and_a_detached_one_is_not() {
        DefaultPool::run_with(async |driver| {
            let (dropped, dropped_gone) = async_channel::bounded::<()>(1);
            let task = driver.spawn("dropped", async move {
                std::future::pending::<()>().await;
                drop(dropped);
            });
            drop(task);
            assert!(dropped_gone.recv().await.is_err());

            let (sender, receiver) = async_channel::bounded(1);
            driver
                .spawn("detached", async move { sender.send(1).await })
                .detach();
            assert_eq!(receiver.recv().await, Ok(1));
        });
    }

    #[test]
    fn cancelling_waits_until_the_task_is_gone() {
        DefaultPool::run_with(async |driver| {
            let owned = Arc::new(());
            let task = driver.spawn("owner", {
                let owned = owned.clone();
                async move {
                    std::future::pending::<()>().await;
                    drop(owned);
                }
            });
            assert_eq!(task.cancel().await, None);
            assert_eq!(Arc::strong_count(&owned), 1);
        });
    }

    #[test]
    fn a_panic_is_found_by_whoever_joins() {
        DefaultPool::run_with(async |driver| {
            let text = driver.spawn("text", async { panic!("no reason") });
            let formatted = driver.unblock("formatted", || panic!("reason {}", 1));
            let panicked = |name: &str, message: &str| {
                Err::<(), _>(JoinError::Panicked {
                    name: name.into(),
                    message: message.into(),
                })
            };
            assert_eq!(text.await, panicked("text", "no reason"));
            assert_eq!(formatted.await, panicked("formatted", "reason 1"));
            // The pool goes on.
            assert_eq!(driver.spawn("next", async { 1 }).await, Ok(1));
            assert_eq!(driver.unblock("next", || 1).await, Ok(1));
        });
    }

    #[test]
    fn blocking_work_does_not_hold_up_tasks() {
        DefaultPool::run_with(async |driver| {
            let (sender, receiver) = mpsc::channel();
            let blocking = driver.unblock("blocking", move || receiver.recv());
            // The one thread of the pool runs this while the other is blocked.
            driver
                .spawn("unblocker", async move { sender.send(7) })
                .await
                .unwrap()
                .unwrap();
            assert_eq!(blocking.await.unwrap(), Ok(7));
        });
    }

    #[test]
    fn sleeping_takes_its_time() {
        DefaultPool::run_with(async |driver| {
            let begin = Instant::now();
            driver.sleep(Duration::from_millis(2)).await;
            assert!(begin.elapsed() >= Duration::from_millis(2));
            assert!(driver.sleep(Duration::MAX).now_or_never().is_none());
        });
    }
}
