//! Disks in files and block devices: raw, or fixed VHD.
//!
//! I/O goes through the host's page cache; a flush makes it durable (`fdatasync`). It is asynchronous: by io_uring if the
//! host allows that, else by a pool of threads.

mod engine;
mod file_disk;
mod job;
mod lock;
mod page_cache;
mod ring;
mod system_call;
mod threads;

pub use engine::Engine;
pub use file_disk::FileDisk;
pub use file_disk::FileDiskError;
pub use file_disk::FileOptions;
pub use file_disk::Format;
pub use lock::LockHolder;
