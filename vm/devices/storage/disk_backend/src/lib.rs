//! The contract between virtual disks and the devices that present them to a guest, and disks in memory.
//!
//! A [`Disk`] is shared. A thread that does I/O opens its own [`DiskQueue`], submits any number of
//! [`DiskOperation`]s, and waits for completions and for its own events in one place. Data moves between the disk and
//! [`Buffers`], which keep the memory mapped as long as an operation uses it.

mod attached;
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

pub use attached::AttachedDisk;
pub use attached::AttachedDisks;
pub use attached::FlushDisksError;
pub use buffers::Buffers;
pub use buffers::BuffersError;
pub use disk::BlockSizeError;
pub use disk::Completion;
pub use disk::Disk;
pub use disk::DiskAccess;
pub use disk::DiskError;
pub use disk::DiskInfo;
pub use disk::DiskOperation;
pub use disk::DiskQueue;
pub use disk::Extent;
pub use disk::SECTOR;
pub use disk::Space;
pub use events::EventSet;
#[cfg(feature = "test_support")]
pub use faulty::Faults;
#[cfg(feature = "test_support")]
pub use faulty::FaultyDisk;
pub use memory_disk::MemoryDisk;
pub use memory_disk::MemoryDiskError;
pub use overlay::OverlayDisk;
