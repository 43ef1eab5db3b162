//! The hypervisor interface: traits for partitions and VPs, and their state, with no hypervisor's own types.
//!
//! A [`Hypervisor`] makes a partition: one shared [`Partition`] object and a [`VpBinder`] for each VP. A
//! binder is moved to the thread that will run the VP and becomes a [`Vp`] there. Guest accesses that
//! the hypervisor does not handle itself reach the VMM through [`IoBus`].
#![forbid(unsafe_code)]

mod error;
mod hypervisor;
mod io_bus;
mod partition;
mod processor;
mod topology;
mod vp;
pub mod x86;

pub use error::Error;
pub use hypervisor::GuestProcessor;
pub use hypervisor::HostInfo;
pub use hypervisor::HostKind;
pub use hypervisor::Hypervisor;
pub use hypervisor::IrqchipMode;
pub use hypervisor::NewPartition;
pub use hypervisor::PartitionConfig;
pub use io_bus::IoBus;
pub use partition::MappingAccess;
pub use partition::Partition;
pub use partition::ProcessorIdentity;
pub use processor::CpuidOverride;
pub use processor::Enlightenment;
pub use processor::ProcessorFeatures;
pub use topology::MAX_PROCESSORS;
pub use topology::Topology;
pub use topology::TopologyConfig;
pub use topology::TopologyError;
pub use topology::VpIndex;
pub use topology::VpTopology;
pub use vp::RunError;
pub use vp::Vp;
pub use vp::VpBinder;
pub use vp::VpKick;
pub use vp::VpStop;
