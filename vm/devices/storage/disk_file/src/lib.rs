//! Disks in files and block devices: raw, fixed VHD, or qcow2.
//!
//! I/O goes through the host's page cache, unless it is direct; a flush makes it durable (`fdatasync`). It is asynchronous: by io_uring if the
//! host allows that, else by a pool of threads.

mod created;
mod direct;
mod engine;
mod error;
mod file_disk;
mod format;
mod guard;
mod job;
mod lock;
mod open;
mod page_cache;
mod qcow2;
mod ring;
mod system_call;
mod threads;

pub use direct::Caching;
pub use engine::Engine;
pub use error::FileDiskError;
pub use file_disk::FileDisk;
pub use format::Format;
pub use lock::LockHolder;
pub use open::FileOptions;
pub use open::check;
pub use open::open;
pub use qcow2::Qcow2Error;
