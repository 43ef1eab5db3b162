//! The VMGS store: files of guest state on a small disk, changed atomically, optionally encrypted.
//!
//! [`Vmgs`] is a synchronous store over any [`BlockDevice`]. It reads and writes what Hyper-V and
//! OpenHCL do, byte for byte (the layouts are in `vmgs_format`), and adds two things that cannot be seen
//! on the disk: a change is durable when it returns, and nothing that either header leads to is
//! overwritten before its successor is on the medium.
//!
//! Whoever can write the disk is not trusted: headers, tables, offsets and lengths are validated before
//! they are used, a damaged header falls back to the other, and a damaged file costs that file only.
//! Older states of the whole store cannot be told from the newest: the format has no protection
//! against being rolled back.

mod alloc;
mod commit;
mod container;
mod crypto;
mod device;
mod disk;
mod error;
mod event;
mod finding;
mod header;
mod keys;
mod provisioning;
mod read;
#[cfg(feature = "test_support")]
pub mod recording;
mod saved;
mod state;
mod store;
mod transact;
mod verify;

pub use commit::Commit;
pub use commit::Overwrite;
pub use commit::Protection;
pub use container::Container;
pub use container::ContainerError;
pub use container::DiskShape;
pub use container::create_file;
pub use container::grow_file;
pub use crypto::Key;
pub use device::BlockDevice;
pub use device::file::FileDevice;
pub use device::memory::MemoryDevice;
pub use error::Error;
pub use error::ErrorKind;
pub use event::Event;
pub use event::EventSink;
pub use finding::Damage;
pub use finding::Finding;
pub use finding::Severity;
pub use header::HeaderError;
pub use header::HeaderScan;
pub use provisioning::Provisioner;
pub use provisioning::ProvisioningMarker;
pub use provisioning::RecordedReason;
pub use read::READ_LIMIT;
pub use saved::SavedStore;
pub use store::Access;
pub use store::FileInfo;
pub use store::HeaderPolicy;
pub use store::OnProblem;
pub use store::OpenOptions;
pub use store::OpenPolicy;
pub use store::ProvisioningReason;
pub use store::Vmgs;
pub use vmgs_format::FileId;
