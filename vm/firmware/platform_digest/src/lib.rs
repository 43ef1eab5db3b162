//! What a firmware and its operating system can see of a machine, in a form that can be stored, digested and
//! compared.
//!
//! A guest that hibernated assumes the machine it went to sleep on. [`PlatformView`] says which machine that
//! was; [`differences`] says in words what is different about the one it is about to wake on.
#![forbid(unsafe_code)]

mod compare;
mod decode;
mod encode;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod view;

pub use compare::Aspect;
pub use compare::Difference;
pub use compare::differences;
pub use decode::DecodeError;
pub use encode::ENCODING_VERSION;
pub use encode::MAX_ENCODED_LEN;
pub use view::AddressRange;
pub use view::BlobDigest;
pub use view::Device;
pub use view::Digest;
pub use view::InvalidView;
pub use view::MmioRange;
pub use view::PlatformView;
