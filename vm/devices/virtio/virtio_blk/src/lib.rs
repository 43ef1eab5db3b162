//! The virtio block device (Virtual I/O Device Version 1.2, section 5.2) on any disk.
#![forbid(unsafe_code)]

mod config;
mod device;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod queue;
mod request;
mod stats;

pub use config::BlkConfig;
pub use config::BlkConfigError;
pub use config::MAX_QUEUES;
pub use config::SERIAL_LEN;
pub use device::VirtioBlk;
