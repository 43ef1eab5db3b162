use crate::Error;
use crate::Partition;
use crate::ProcessorFeatures;
use crate::Topology;
use crate::VpBinder;
use guest_memory::GuestMemory;
use std::sync::Arc;

/// How the host virtualizes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum HostKind {
    /// Intel VMX.
    Vmx,
    /// AMD SVM.
    Svm,
    /// Guest kernel code is emulated in software: slow, and some instructions are missing.
    Software,
    /// Could not be determined.
    Unknown,
}

/// What the host offers, before any partition exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// How the host virtualizes.
    pub kind: HostKind,
    /// The width of a guest-physical address, in bits.
    pub address_bits: u8,
    /// Whether a guest can run guests of its own.
    pub nested: bool,
}

/// Where the interrupt controllers are.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub enum IrqchipMode {
    /// Local APICs, IOAPIC, PIC and PIT in the hypervisor.
    #[default]
    Kernel,
    /// Local APICs in the hypervisor, the IOAPIC in the VMM, no PIC and no PIT.
    Split,
}

/// What a partition is made from.
#[derive(Debug)]
pub struct PartitionConfig<'a> {
    /// The VPs.
    pub topology: &'a Topology,
    /// Guest RAM; mapped read-write when the partition is made.
    pub memory: &'a GuestMemory,
    /// Where the interrupt controllers are.
    pub irqchip: IrqchipMode,
    /// What the guest finds in its processors.
    pub processor: ProcessorFeatures,
}

/// A partition just made, and its VPs in index order.
pub struct NewPartition {
    /// What all threads share.
    pub partition: Arc<dyn Partition>,
    /// One for each VP, in index order.
    pub vps: Vec<Box<dyn VpBinder>>,
}

/// A hypervisor.
pub trait Hypervisor: Send + Sync {
    /// What the host offers.
    fn host_info(&self) -> Result<HostInfo, Error>;

    /// Makes a partition.
    fn new_partition(&self, config: PartitionConfig<'_>) -> Result<NewPartition, Error>;
}
