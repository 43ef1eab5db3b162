//! Virtio over PCI (4.1), without the legacy interface.

mod device;
mod function;
mod state;

pub use device::PciSlot;
pub use device::Siblings;
pub use device::VirtioPciDevice;
pub use function::TransportError;

#[cfg(test)]
mod device_test;
