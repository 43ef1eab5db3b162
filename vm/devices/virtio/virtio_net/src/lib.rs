//! The virtio network device (virtio 1.3, section 5.1), on a Linux tap interface or a user-mode network.

mod backend;
mod device;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod frame_stream;
mod handle;
mod header;
mod ioctl;
mod link;
mod mac;
mod passt;
mod receive;
#[cfg(any(test, feature = "fuzzing"))]
mod socket_backend;
mod stats;
mod tap;
mod transmit;
mod user_network;

pub use backend::NetBackend;
pub use backend::Offloads;
pub use backend::ReceiveError;
pub use device::NetConfig;
pub use device::NetDevice;
pub use handle::HostNetwork;
pub use handle::VirtioNetHandle;
pub use link::Link;
pub use link::LinkState;
pub use mac::MacAddress;
pub use mac::ParseMacError;
pub use tap::Tap;
pub use tap::TapError;
pub use user_network::PortForward;
pub use user_network::PortProtocol;
pub use user_network::UserNetwork;
pub use user_network::UserNetworkError;
