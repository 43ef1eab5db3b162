use crate::Error;
use crate::Partition;
use crate::ProcessorFeatures;
use crate::Topology;
use crate::VpBinder;
use crate::x86::CpuidEntry;
use guest_memory::GuestMemory;
use std::sync::Arc;

/// How the host virtualizes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum HostKind {
    /// Intel VMX.
    Vmx,
    /// AMD SVM.
    Svm,
    /// Guest kernel code is emulated in software: it is slow, and some instructions are missing.
    Software,
    /// Could not be determined.
    Unknown,
}

/// What the host supports.
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
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum IrqchipMode {
    /// Local APICs, IOAPIC, PIC and PIT in the hypervisor.
    #[default]
    #[n(0)]
    Kernel,
    /// Local APICs in the hypervisor, the IOAPIC in the VMM, no PIC and no PIT.
    #[n(1)]
    Split,
}

/// The configuration of a new partition.
#[derive(Debug)]
pub struct PartitionConfig<'a> {
    /// The VPs.
    pub topology: &'a Topology,
    /// Guest RAM; mapped read-write when the partition is created.
    pub memory: &'a GuestMemory,
    /// Where the interrupt controllers are.
    pub irqchip: IrqchipMode,
    /// Processor features beyond the hypervisor's defaults.
    pub processor: ProcessorFeatures,
}

/// A new partition and its VPs.
pub struct NewPartition {
    /// The partition.
    pub partition: Arc<dyn Partition>,
    /// One for each VP, in index order.
    pub vps: Vec<Box<dyn VpBinder>>,
}

/// What a guest is told of its processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestProcessor {
    /// The boot processor's CPUID table.
    pub cpuid: Vec<CpuidEntry>,
    /// The frequency of the time stamp counter, if the hypervisor says it.
    pub tsc_khz: Option<u32>,
}

/// A hypervisor.
pub trait Hypervisor: Send + Sync {
    /// What the host supports.
    fn host_info(&self) -> Result<HostInfo, Error>;

    /// What the guest of a partition with this topology and these features will be told of its processors.
    fn guest_processor(
        &self,
        topology: &Topology,
        processor: &ProcessorFeatures,
    ) -> Result<GuestProcessor, Error>;

    /// The most MSI-X vectors that the devices of a partition can have together.
    fn max_msi_vectors(&self, irqchip: IrqchipMode) -> u32;

    /// Creates a partition.
    fn new_partition(&self, config: PartitionConfig<'_>) -> Result<NewPartition, Error>;
}
