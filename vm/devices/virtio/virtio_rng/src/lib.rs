//! The virtio entropy device (virtio 1.3, section 5.4), filled from the host's random number generator.
#![forbid(unsafe_code)]

mod budget;
mod device;
mod handle;

pub use budget::EntropyRate;
pub use device::EntropyDevice;
pub use handle::VirtioRngHandle;
