//! The one async driver: tasks, timers, fd readiness and a blocking pool, over smol.
//!
//! Other crates use this one and never smol. A program's main thread usually becomes the pool:
//!
//! ```
//! use pal_async::DefaultPool;
//!
//! let answer = DefaultPool::run_with(async |driver| {
//!     let task = driver.spawn("answer", async { 42 });
//!     task.await
//! });
//! assert_eq!(answer.unwrap(), 42);
//! ```
#![forbid(unsafe_code)]

mod driver;
mod executor;
mod fd;
mod pool;
mod task;
mod timer;

pub use driver::Driver;
pub use fd::PolledFd;
pub use fd::RegisterError;
pub use pool::DefaultPool;
pub use pool::SpawnThreadError;
pub use pool::block_on;
pub use task::JoinError;
pub use task::Task;
pub use timer::Timer;
