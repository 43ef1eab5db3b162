//! The virtio network device (virtio 1.3, section 5.1), on a Linux tap interface.

mod backend;
#[cfg(any(test, feature = "fuzzing"))]
mod cable;
mod device;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod handle;
mod header;
mod ioctl;
mod mac;
mod receive;
mod stats;
mod tap;
mod transmit;

pub use backend::NetBackend;
pub use backend::Offloads;
pub use device::Link;
pub use device::LinkState;
pub use device::NetConfig;
pub use device::NetDevice;
pub use handle::VirtioNetHandle;
pub use mac::MacAddress;
pub use mac::ParseMacError;
pub use tap::Tap;
pub use tap::TapError;
