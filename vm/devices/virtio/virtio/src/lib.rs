//! Virtio 1.x devices: the PCI transport, and queues on guest memory.
//!
//! A device type implements [`VirtioDevice`]. The transport calls it on VP threads with the device locked. The
//! queues that it passes to [`VirtioDevice::activate`] are processed elsewhere, on a [`WorkerThread`] for example,
//! until [`VirtioDevice::deactivate`] returns them.

mod chain;
mod common_config;
mod device;
mod event_fd;
mod handle;
mod iovec;
mod queue;
mod signals;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod wakeup_policy;
mod worker_thread;

pub use chain::Buffer;
pub use chain::ChainBuffers;
pub use chain::DescriptorChain;
pub use device::ActivateError;
pub use device::Activation;
pub use device::DeviceInfo;
pub use device::VirtioDevice;
pub use event_fd::EventFd;
pub use handle::build_pci_function;
pub use handle::msi_vectors;
pub use iovec::GuestIoVec;
pub use queue::QueueError;
pub use queue::QueueStats;
pub use queue::VirtQueue;
pub use signals::DeviceSignals;
pub use signals::InterruptSink;
pub use transport::MultiFunction;
pub use transport::PciConnection;
pub use transport::TransportError;
pub use transport::VirtioPciDevice;
pub use wakeup_policy::WakeupPolicy;
pub use worker_thread::StopSignal;
pub use worker_thread::Wakeup;
pub use worker_thread::WorkerThread;
