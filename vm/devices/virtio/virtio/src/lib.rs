//! Virtio 1.x devices: the PCI transport, and queues on guest memory.
//!
//! A device type implements [`VirtioDevice`]. The transport calls it on VP threads with the device locked;
//! the queues it hands over at [`VirtioDevice::activate`] are worked on elsewhere, by a [`Worker`] or by
//! what the device type likes better, until [`VirtioDevice::deactivate`] takes them back.

mod chain;
mod device;
mod event;
mod handle;
mod iovec;
mod preemption;
mod queue;
mod registers;
mod signals;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod worker;

pub use chain::Buffer;
pub use chain::Buffers;
pub use chain::Chain;
pub use device::ActivateError;
pub use device::Activation;
pub use device::DeviceInfo;
pub use device::VirtioDevice;
pub use event::Event;
pub use handle::build_pci_function;
pub use iovec::GuestIoVec;
pub use preemption::Preemption;
pub use queue::QueueError;
pub use queue::QueueStats;
pub use queue::VirtQueue;
pub use signals::DeviceSignals;
pub use signals::InterruptSink;
pub use transport::PciSlot;
pub use transport::Siblings;
pub use transport::TransportError;
pub use transport::VirtioPciDevice;
pub use worker::Stop;
pub use worker::Wakeup;
pub use worker::Worker;
