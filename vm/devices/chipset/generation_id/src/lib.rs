//! The VM generation ID: 128 bits in guest memory that change when the machine is cloned or rolled back.
#![forbid(unsafe_code)]

mod device;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;

pub use device::GENERATION_ID_LEN;
pub use device::GenerationId;
