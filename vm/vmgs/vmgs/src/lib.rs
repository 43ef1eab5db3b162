//! The VMGS store: files of guest state on a small disk, changed atomically, optionally encrypted.
//!
//! [`Vmgs`] is a synchronous store on any [`BlockDevice`]. It reads and writes the format of Hyper-V and
//! OpenHCL (the layouts are in `vmgs_format`). In addition, a change is durable when it returns, and
//! nothing that either header refers to is overwritten before its successor is on the medium.
//!
//! The content of the disk is untrusted: headers, tables, offsets and lengths are validated before they
//! are used. If one header is damaged, the other is used; damage of one file does not affect others.
//! Replacing the whole store by an older copy is not detected: the format has no rollback protection.

mod alloc;
mod commit;
mod container;
mod content;
mod crypto;
mod damage;
mod device;
mod disk;
mod error;
mod finding;
mod grow;
mod header;
mod keys;
mod leftover;
mod options;
mod provisioning;
mod read;
mod renew;
mod saved;
mod state;
mod store;
#[cfg(feature = "test_support")]
pub mod testing;
mod transact;
mod verify;

pub use commit::Commit;
pub use commit::Overwrite;
pub use commit::Protection;
pub use container::Container;
pub use container::ContainerError;
pub use container::DiskShape;
pub use container::create_file;
pub use crypto::Key;
pub use damage::Damage;
pub use damage::HeaderError;
pub use device::BlockDevice;
pub use device::FileDevice;
pub use device::MemoryDevice;
pub use device::StagedDevice;
pub use error::Error;
pub use error::ErrorKind;
pub use finding::Finding;
pub use finding::Severity;
pub use grow::grow_file;
pub use header::HeaderScan;
pub use options::HeaderPolicy;
pub use options::OnProblem;
pub use options::OpenOptions;
pub use options::OpenPolicy;
pub use options::StoreAccess;
pub use provisioning::Provisioner;
pub use provisioning::ProvisioningMarker;
pub use provisioning::ProvisioningReason;
pub use read::READ_LIMIT;
pub use saved::SavedStore;
pub use store::FileInfo;
pub use store::Vmgs;
pub use vmgs_format::FileId;
