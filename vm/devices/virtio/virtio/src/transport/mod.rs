//! Virtio over PCI (4.1), without the legacy interface.

mod connection;
mod device;
mod function;
mod state;

pub use connection::MultiFunction;
pub use connection::PciConnection;
pub use device::VirtioPciDevice;
pub use function::TransportError;
