//! The handle by which a program spawns tasks and waits for events.

use crate::PolledFd;
use crate::RegisterError;
use crate::Task;
use crate::TaskInfo;
use crate::TimedOut;
use crate::Timer;
use crate::executor::Executor;
use crate::task::panicked;
use futures::future::Either;
use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

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
    /// Once started it runs to its end, whatever becomes of the task or the pool.
    pub fn unblock<T: Send + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Task<T> {
        let name = name.into();
        let registration = self.executor.register(name.clone());
        let task = smol::unblock({
            let name = name.clone();
            move || {
                let _registration = registration;
                catch_unwind(AssertUnwindSafe(work)).map_err(|payload| panicked(name, &*payload))
            }
        });
        Task::new(name, task)
    }

    /// The tasks that are alive, oldest first.
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.executor.tasks()
    }

    /// A timer that is not set.
    pub fn timer(&self) -> Timer {
        Timer::new()
    }

    /// Waits for `duration`; forever if that is beyond what the clock can say.
    pub async fn sleep(&self, duration: Duration) {
        smol::Timer::after(duration).await;
    }

    /// Waits until `deadline`.
    pub async fn sleep_until(&self, deadline: Instant) {
        smol::Timer::at(deadline).await;
    }

    /// Waits for `future`, and drops it if it takes longer than `duration`.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, TimedOut> {
        match futures::future::select(pin!(future), smol::Timer::after(duration)).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(TimedOut { after: duration }),
        }
    }

    /// Watches `fd`; see [`PolledFd::new`].
    pub fn polled_fd<T>(&self, fd: T) -> Result<PolledFd<T>, RegisterError>
    where
        T: AsFd + Send + Sync + 'static,
    {
        PolledFd::new(self, fd)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("tasks", &self.tasks())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DefaultPool;
    use crate::JoinError;
    use futures::FutureExt;
    use std::sync::mpsc;

    fn names(driver: &Driver) -> Vec<String> {
        driver
            .tasks()
            .iter()
            .map(|task| task.name.to_string())
            .collect()
    }

    #[test]
    fn tasks_have_outputs_and_names() {
        DefaultPool::run_with(async |driver| {
            let (sender, receiver) = async_channel::bounded::<()>(1);
            let waiting = driver.spawn("waiting", {
                let receiver = receiver.clone();
                async move { receiver.recv().await.is_ok() }
            });
            let also = driver.spawn(String::from("also"), async move {
                receiver.recv().await.is_ok()
            });
            assert_eq!(waiting.name(), "waiting");
            assert!(!waiting.is_finished());
            assert_eq!(names(&driver), ["waiting", "also"]);
            sender.close();
            assert_eq!(waiting.await, Ok(false));
            assert_eq!(also.await, Ok(false));
            assert_eq!(driver.tasks(), []);
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
            assert_eq!(driver.tasks(), []);
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
            assert_eq!(names(&driver), ["blocking"]);
            // The one thread of the pool runs this while the other is blocked.
            driver
                .spawn("unblocker", async move { sender.send(7) })
                .await
                .unwrap()
                .unwrap();
            assert_eq!(blocking.await.unwrap(), Ok(7));
            assert_eq!(driver.tasks(), []);
        });
    }

    #[test]
    fn sleeping_takes_its_time() {
        DefaultPool::run_with(async |driver| {
            let begin = Instant::now();
            driver.sleep(Duration::from_millis(2)).await;
            assert!(begin.elapsed() >= Duration::from_millis(2));
            let deadline = Instant::now() + Duration::from_millis(2);
            driver.sleep_until(deadline).await;
            assert!(Instant::now() >= deadline);
            driver.sleep_until(begin).await;
            assert!(driver.sleep(Duration::MAX).now_or_never().is_none());
        });
    }

    #[test]
    fn a_timeout_ends_what_does_not_end() {
        DefaultPool::run_with(async |driver| {
            let after = Duration::from_millis(1);
            assert_eq!(
                driver.timeout(after, std::future::pending::<()>()).await,
                Err(TimedOut { after })
            );
            assert_eq!(driver.timeout(Duration::ZERO, async { 1 }).await, Ok(1));
            assert_eq!(driver.timeout(Duration::MAX, async { 1 }).await, Ok(1));
        });
    }
}
