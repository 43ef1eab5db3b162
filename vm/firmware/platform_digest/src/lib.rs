//! The guest-visible platform of a machine, in a form that can be stored, digested and compared.
//!
//! A guest that hibernated depends on the machine that it hibernated on. [`PlatformView`] describes a machine;
//! [`differences`] lists in words how the machine that is started differs from the one it hibernated on.
#![forbid(unsafe_code)]

mod compare;
pub mod cpu_features;
mod decode;
mod encode;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod view;

pub use compare::Aspect;
pub use compare::Difference;
pub use compare::differences;
pub use decode::ViewDecodeError;
pub use encode::ENCODING_VERSION;
pub use encode::MAX_ENCODED_LEN;
pub use view::AddressRange;
pub use view::BlobDigest;
pub use view::BootFile;
pub use view::CpuidLeaf;
pub use view::Digest;
pub use view::DiskContent;
pub use view::InvalidView;
pub use view::MmioRange;
pub use view::PlatformDevice;
pub use view::PlatformDisk;
pub use view::PlatformProcessor;
pub use view::PlatformView;
