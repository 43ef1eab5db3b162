//! The threads that run tasks.

use crate::Driver;
use crate::executor::Executor;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

thread_local! {
    static ON_POOL: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread as one that runs tasks, until dropped.
struct PoolThread(());

impl PoolThread {
    fn enter() -> Self {
        forbid_on_pool();
        ON_POOL.set(true);
        Self(())
    }
}

impl Drop for PoolThread {
    fn drop(&mut self) {
        ON_POOL.set(false);
    }
}

fn forbid_on_pool() {
    assert!(
        !ON_POOL.get(),
        "a thread that runs tasks would block: await instead"
    );
}

/// Blocks the thread until `future` completes.
///
/// # Panics
///
/// On a thread that runs tasks: they would stand still, perhaps for good.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    forbid_on_pool();
    smol::block_on(future)
}

/// A thread of a pool could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start thread {name}")]
pub struct SpawnThreadError {
    name: String,
    #[source]
    source: std::io::Error,
}

/// Threads that run tasks, until dropped.
///
/// Dropping it cancels the tasks and waits until they are gone and the threads ended. A task that drops
/// its own pool waits for the other threads only.
pub struct DefaultPool {
    executor: Arc<Executor>,
    threads: Vec<JoinHandle<()>>,
}

impl DefaultPool {
    /// Makes the current thread the pool for as long as `main` runs, and gives its output.
    ///
    /// Tasks that are alive then are cancelled, and gone when this returns.
    ///
    /// # Panics
    ///
    /// On a thread that runs tasks already.
    pub fn run_with<T>(main: impl AsyncFnOnce(Driver) -> T) -> T {
        /// Also when `main` panics.
        struct Stop<'a>(&'a Executor);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.stop();
                smol::block_on(self.0.drain());
            }
        }

        let _on_pool = PoolThread::enter();
        let executor = Executor::new();
        let stop = Stop(&executor);
        let output = smol::block_on(executor.run(main(Driver::new(executor.clone()))));
        drop(stop);
        output
    }

    /// A pool of one thread called `name`.
    pub fn spawn(name: &str) -> Result<Self, SpawnThreadError> {
        Self::spawn_threads(name, NonZeroUsize::MIN)
    }

    /// A pool of `count` threads, called `name` and a number.
    pub fn spawn_threads(name: &str, count: NonZeroUsize) -> Result<Self, SpawnThreadError> {
        let mut pool = Self {
            executor: Executor::new(),
            threads: Vec::new(),
        };
        let running = Arc::new(AtomicUsize::new(0));
        for index in 0..count.get() {
            let name = if count == NonZeroUsize::MIN {
                name.to_owned()
            } else {
                format!("{name}-{index}")
            };
            let executor = pool.executor.clone();
            running.fetch_add(1, Ordering::AcqRel);
            let running_in_thread = running.clone();
            let thread = std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || {
                    let _on_pool = PoolThread::enter();
                    smol::block_on(executor.run_until_stopped());
                    if running_in_thread.fetch_sub(1, Ordering::AcqRel) == 1 {
                        smol::block_on(executor.drain());
                    }
                });
            match thread {
                Ok(thread) => pool.threads.push(thread),
                Err(source) => {
                    running.fetch_sub(1, Ordering::AcqRel);
                    return Err(SpawnThreadError { name, source });
                }
            }
        }
        Ok(pool)
    }

    /// A handle to spawn tasks by. It does not keep the pool alive.
    pub fn driver(&self) -> Driver {
        Driver::new(self.executor.clone())
    }
}

impl Drop for DefaultPool {
    fn drop(&mut self) {
        self.executor.stop();
        let current = std::thread::current().id();
        for thread in self.threads.drain(..) {
            if thread.thread().id() == current {
                continue;
            }
            let name = thread.thread().name().map(str::to_owned);
            if thread.join().is_err() {
                tracing::error!(name, "a thread of the pool panicked");
            }
        }
    }
}

impl std::fmt::Debug for DefaultPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DefaultPool")
            .field("threads", &self.threads.len())
            .field("tasks", &self.executor.tasks())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JoinError;
    use std::future::pending;
    use std::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;

    fn cancelled<T>(name: &str) -> Result<T, JoinError> {
        Err(JoinError::Cancelled { name: name.into() })
    }

    #[test]
    fn the_calling_thread_runs_the_tasks() {
        let here = std::thread::current().id();
        let there = DefaultPool::run_with(async |driver| {
            driver
                .spawn("where", async { std::thread::current().id() })
                .await
        });
        assert_eq!(there, Ok(here));
    }

    #[test]
    fn tasks_end_with_the_pool() {
        let owned = Arc::new(());
        let held = owned.clone();
        let (task, driver) = DefaultPool::run_with(async |driver| {
            let task = driver.spawn("holder", {
                // Tasks hold drivers, and still nothing leaks.
                let driver = driver.clone();
                async move {
                    pending::<()>().await;
                    drop((held, driver));
                }
            });
            (task, driver)
        });
        assert_eq!(Arc::strong_count(&owned), 1);
        assert_eq!(driver.tasks(), []);
        assert_eq!(block_on(task), cancelled("holder"));
        assert_eq!(block_on(driver.spawn("late", async {})), cancelled("late"));
    }

    #[test]
    fn tasks_end_when_the_main_future_panics() {
        let owned = Arc::new(());
        let held = owned.clone();
        let result = catch_unwind(AssertUnwindSafe(|| {
            DefaultPool::run_with(async |driver| {
                driver
                    .spawn("holder", async move {
                        pending::<()>().await;
                        drop(held);
                    })
                    .detach();
                panic!("main");
            });
        }));
        assert!(result.is_err());
        assert_eq!(Arc::strong_count(&owned), 1);
        // And the thread can be a pool again.
        assert_eq!(DefaultPool::run_with(async |_driver| 1), 1);
    }

    #[test]
    fn background_threads_run_tasks_and_end() {
        let pool = DefaultPool::spawn("background").unwrap();
        let driver = pool.driver();
        let name = driver.spawn("name", async {
            std::thread::current().name().map(str::to_owned)
        });
        assert_eq!(block_on(name).unwrap().as_deref(), Some("background"));
        let owned = Arc::new(());
        let held = owned.clone();
        let task = driver.spawn("holder", async move {
            pending::<()>().await;
            drop(held);
        });
        drop(pool);
        assert_eq!(Arc::strong_count(&owned), 1);
        assert_eq!(block_on(task), cancelled("holder"));
    }

    #[test]
    fn several_threads_run_tasks_at_once() {
        let count = NonZeroUsize::new(3).unwrap();
        let pool = DefaultPool::spawn_threads("several", count).unwrap();
        // Each blocks its thread until all three are there.
        let barrier = Arc::new(std::sync::Barrier::new(3));
        let tasks = (0..3)
            .map(|_| {
                let barrier = barrier.clone();
                pool.driver().spawn("meet", async move {
                    barrier.wait();
                })
            })
            .collect::<Vec<_>>();
        for task in tasks {
            assert_eq!(block_on(task), Ok(()));
        }
    }

    #[test]
    fn many_tasks_end_while_more_are_spawned() {
        let count = NonZeroUsize::new(2).unwrap();
        let pool = DefaultPool::spawn_threads("many", count).unwrap();
        let driver = pool.driver();
        let spawner = std::thread::spawn(move || {
            // Ends because spawning on a stopped pool cancels at once.
            loop {
                let task = driver.spawn("short", async {});
                if block_on(task).is_err() {
                    break;
                }
                driver.spawn("long", pending::<()>()).detach();
            }
            driver
        });
        let _ran = block_on(pool.driver().spawn("once", async {}));
        drop(pool);
        assert_eq!(spawner.join().unwrap().tasks(), []);
    }

    #[test]
    fn a_task_may_drop_its_own_pool() {
        let pool = DefaultPool::spawn("own").unwrap();
        let driver = pool.driver();
        let holder = driver.spawn("other", pending::<()>());
        let task = driver.spawn("own", async move { drop(pool) });
        assert_eq!(block_on(holder), cancelled("other"));
        // It ran to its end, or to the end of that poll.
        let _ = block_on(task);
    }

    #[test]
    fn blocking_a_pool_thread_panics_instead() {
        DefaultPool::run_with(async |driver| {
            let nested = driver.spawn("nested", async { block_on(async {}) });
            assert!(matches!(nested.await, Err(JoinError::Panicked { .. })));
            let nested = driver.spawn("nested", async { DefaultPool::run_with(async |_| ()) });
            assert!(matches!(nested.await, Err(JoinError::Panicked { .. })));
            // The blocking pool may.
            assert_eq!(driver.unblock("may", || block_on(async { 1 })).await, Ok(1));
        });
    }
}
