//! The threads that run tasks.

use crate::Driver;
use crate::executor::Executor;
use std::cell::Cell;
use std::sync::Arc;
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
/// On a thread that runs tasks, because none of them would run meanwhile.
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

/// A thread that runs tasks, until dropped.
///
/// Dropping it cancels the tasks and waits until they are gone and the thread ended, unless a task of its
/// own drops it: that one does not wait.
pub struct DefaultPool {
    executor: Arc<Executor>,
    thread: Option<JoinHandle<()>>,
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
        let executor = Executor::new();
        let running = executor.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _on_pool = PoolThread::enter();
                smol::block_on(running.run_until_stopped());
                smol::block_on(running.drain());
            });
        let thread = thread.map_err(|source| SpawnThreadError {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self {
            executor,
            thread: Some(thread),
        })
    }

    /// A handle to spawn tasks by. It does not keep the pool alive.
    pub fn driver(&self) -> Driver {
        Driver::new(self.executor.clone())
    }
}

impl Drop for DefaultPool {
    fn drop(&mut self) {
        self.executor.stop();
        let Some(thread) = self.thread.take() else {
            return;
        };
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the thread of a task pool panicked");
        }
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
                // A driver in a task does not keep the pool alive.
                let driver = driver.clone();
                async move {
                    pending::<()>().await;
                    drop((held, driver));
                }
            });
            (task, driver)
        });
        assert_eq!(Arc::strong_count(&owned), 1);
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
    fn many_tasks_end_while_more_are_spawned() {
        let pool = DefaultPool::spawn("many").unwrap();
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
        });
        let _ran = block_on(pool.driver().spawn("once", async {}));
        drop(pool);
        spawner.join().unwrap();
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
