use crate::Error;
use crate::x86::PartitionState;
use chipset_device::DoorbellTarget;
use chipset_device::LineTarget;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use guest_memory::GuestRegion;
use guest_memory::MemoryRange;

/// How a guest may use a memory mapping.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum MappingAccess {
    /// Reads, writes, execution.
    ReadWrite,
    /// Reads and execution; writes go to [`IoBus`](crate::IoBus) as MMIO.
    ReadOnly,
}

/// What VPs say of the processor.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct ProcessorIdentity {
    /// EAX (low half) and EDX (high half) of CPUID leaf 1 on the boot processor: model and features.
    pub signature: u64,
    /// The frequency of the time stamp counter in kHz.
    pub tsc_khz: u32,
}

/// One VM without its VPs: memory map, interrupt controllers and clocks. Shared by VP threads and devices.
///
/// Devices use it through the device contracts: an `Arc<dyn Partition>` coerces to an `Arc<dyn LineTarget>` (interrupt
/// lines into the hypervisor's controllers, by GSI; with [`IrqchipMode::Split`](crate::IrqchipMode::Split) those of the
/// VMM's IOAPIC), an `Arc<dyn MsiTarget>` and an `Arc<dyn DoorbellTarget>`.
pub trait Partition: LineTarget + MsiTarget + DoorbellTarget {
    /// Maps `region` at its guest address, or changes the access of the same mapping. It must not overlap another.
    fn map(&self, region: GuestRegion, access: MappingAccess) -> Result<(), Error>;

    /// Removes the mapping that `map` made at exactly `range`.
    fn unmap(&self, range: MemoryRange) -> Result<(), Error>;

    /// In split mode, sets the MSI that IOAPIC pin `gsi` delivers; `None` for none.
    fn route_line(&self, gsi: u32, msi: Option<MsiMessage>) -> Result<(), Error>;

    /// In split mode, delivers the MSI of IOAPIC pin `gsi` once.
    fn assert_line(&self, gsi: u32) -> Result<(), Error>;

    /// What VPs say of the processor.
    fn processor(&self) -> Result<ProcessorIdentity, Error>;

    /// Stops the guest's paravirtual clock and time stamp counters. All VPs are stopped.
    fn stop_clock(&self) -> Result<(), Error>;

    /// Resumes the clocks from where they were stopped. All VPs are stopped.
    fn start_clock(&self) -> Result<(), Error>;

    /// Returns partition-wide state (interrupt controllers, timers) to power-on. All VPs are stopped.
    fn reset(&self) -> Result<(), Error>;

    /// Reads partition-wide state. All VPs are stopped.
    fn save(&self) -> Result<PartitionState, Error>;

    /// Writes partition-wide state. All VPs are stopped. The clock stays stopped until it is started.
    fn restore(&self, state: &PartitionState) -> Result<(), Error>;

    /// Configuration and memory map, for debugging.
    fn inspect(&self) -> serde_json::Value;
}
