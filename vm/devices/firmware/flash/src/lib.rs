//! The flash chips that PC firmware runs from and keeps its variables in.
//!
//! [`Flash`] is the device: memory that the guest reads without an exit, and whose writes are commands.
//! [`Flash::rom`] ignores them; [`Flash::variables`] obeys and hands every change to a [`FlashStorage`] in
//! the background, in an order that survives a crash at any point.
#![forbid(unsafe_code)]

mod command;
mod device;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod persister;
mod queue;
mod storage;

pub use device::Flash;
pub use device::FlashConfig;
pub use device::FlashError;
pub use persister::FlashControl;
pub use persister::FlashStatus;
pub use persister::FlushError;
pub use storage::Atomicity;
pub use storage::FileStorage;
pub use storage::FileStorageError;
pub use storage::FlashStorage;
pub use storage::MemoryStorage;
pub use storage::StorageError;
pub use storage::Update;
pub use storage::VmgsStorage;
pub use storage::VmgsStorageError;

/// The unit that an erase command erases, and that changes are made durable in, in bytes.
pub const BLOCK_SIZE: usize = 4096;

/// The largest chip, in bytes: what a PC's chipset decodes below 4 GiB.
pub const MAX_SIZE: u64 = 16 << 20;
