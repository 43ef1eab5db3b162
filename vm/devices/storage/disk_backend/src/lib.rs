//! What a virtual disk is to the device that shows it to a guest, and disks made of memory.
//!
//! A [`Disk`] is shared. Whoever does I/O opens a [`DiskQueue`] on the thread that will use it, submits any
//! number of [`Operation`]s, and waits for completions and for its own events in one place. Data moves between the disk
//! and [`Buffers`], which keep the memory alive for as long as an operation uses it.

mod buffers;
mod disk;
mod events;
#[cfg(feature = "test_support")]
pub mod exercise;
#[cfg(feature = "test_support")]
mod faulty;
mod memory_disk;
mod overlay;
mod sparse;

pub use buffers::Buffers;
pub use buffers::BuffersError;
pub use disk::Access;
pub use disk::Completion;
pub use disk::Disk;
pub use disk::DiskError;
pub use disk::DiskInfo;
pub use disk::DiskQueue;
pub use disk::Extent;
pub use disk::Operation;
pub use disk::SECTOR;
pub use disk::Space;
pub use events::Events;
#[cfg(feature = "test_support")]
pub use faulty::Faults;
#[cfg(feature = "test_support")]
pub use faulty::FaultyDisk;
pub use memory_disk::MemoryDisk;
pub use memory_disk::MemoryDiskError;
pub use overlay::OverlayDisk;
