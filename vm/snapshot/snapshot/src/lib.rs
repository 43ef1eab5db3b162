//! The format of a snapshot: a directory with a manifest, the state of the machine's units, and guest RAM.
//!
//! | file | content |
//! |---|---|
//! | `manifest.json` | what was saved and on what host, and the length and the digest of the other files |
//! | `state.bin` | the state of the units, opaque here |
//! | `memory.bin` | guest RAM, range after range; pages of zeros are holes; then a page that says which snapshot it is of |
//! | `memory.idx` | the digest of each chunk of RAM |
//! | `vmgs.bin` | the VMGS store, if the machine has one |
//!
//! A snapshot appears at once or not at all, and is not changed afterwards. Digests find damage, not forgery.
#![forbid(unsafe_code)]

mod digest;
mod error;
mod index;
mod manifest;
mod memory;
mod read;
mod write;

pub use digest::Digest;
pub use error::DamageKind;
pub use error::SnapshotError;
pub use error::WriteError;
pub use index::ENTRY_LEN;
pub use index::HEADER_LEN;
pub use index::MAX_INDEX_LEN;
pub use index::MemoryIndex;
pub use manifest::CpuidRecord;
pub use manifest::DiskRecord;
pub use manifest::FileRecord;
pub use manifest::INDEX_FILE;
pub use manifest::MANIFEST_FILE;
pub use manifest::MAX_MANIFEST_LEN;
pub use manifest::MAX_STATE_LEN;
pub use manifest::MEMORY_FILE;
pub use manifest::Manifest;
pub use manifest::ManifestError;
pub use manifest::MemoryRecord;
pub use manifest::ProcessorRecord;
pub use manifest::STATE_FILE;
pub use manifest::UnitRecord;
pub use manifest::VERSION;
pub use manifest::VMGS_FILE;
pub use memory::CHUNK;
pub use read::Snapshot;
pub use write::Contents;
pub use write::Written;
pub use write::check_target;
pub use write::write;
