//! The flash chips from which PC firmware runs and in which it stores its variables.
//!
//! [`Flash`] is the device: memory that the guest reads without an exit, while writes are commands.
//! [`Flash::rom`] ignores writes. [`Flash::variables`] executes them, and passes every change to a [`FlashStorage`] in
//! the background, in an order that keeps the storage consistent if the host crashes at any point.
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
pub use storage::FlashStorageError;
pub use storage::MemoryStorage;
pub use storage::Update;
pub use storage::VmgsStorage;
pub use storage::VmgsStorageError;

/// The size in bytes of the blocks that are erased and stored.
pub const BLOCK_SIZE: usize = 4096;

/// The maximum size of a chip in bytes: the range that a PC's chipset decodes below 4 GiB.
pub const MAX_SIZE: u64 = 16 << 20;
