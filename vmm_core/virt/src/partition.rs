use crate::Error;
use crate::MsiRoute;
use crate::VpIndex;
use crate::x86::PartitionState;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::MsiMessage;
use guest_memory::GuestRegion;
use guest_memory::MemoryRange;
use std::os::fd::BorrowedFd;

/// How a guest may use a memory mapping.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum MappingAccess {
    /// Reads, writes, execution.
    ReadWrite,
    /// Reads, writes, execution; written pages are recorded for [`Partition::take_dirty_pages`].
    ReadWriteLogged,
    /// Reads and execution; writes go to [`IoBus`](crate::IoBus) as MMIO.
    ReadOnly,
}

/// What the VPs and devices of one VM share.
pub trait Partition: Send + Sync {
    /// Maps `region` at its guest address, or changes the access of the same mapping. It must not overlap another.
    fn map(&self, region: GuestRegion, access: MappingAccess) -> Result<(), Error>;

    /// Removes the mapping that `map` made at exactly `range`.
    fn unmap(&self, range: MemoryRange) -> Result<(), Error>;

    /// The pages of the logged mapping at `range` written since the last call: bit n is page n.
    fn take_dirty_pages(&self, range: MemoryRange) -> Result<Vec<u64>, Error>;

    /// Drives an interrupt line. In split mode the line is the MSI that [`Partition::route_line`] gave it.
    fn set_line(&self, gsi: u32, high: bool) -> Result<(), Error>;

    /// In split mode, the MSI that IOAPIC pin `gsi` stands for.
    fn route_line(&self, gsi: u32, msi: Option<MsiMessage>) -> Result<(), Error>;

    /// Raises an MSI now.
    fn signal_msi(&self, msi: MsiMessage) -> Result<(), Error>;

    /// A new route from an eventfd to an MSI, disabled at first.
    fn new_msi_route(&self) -> Result<Box<dyn MsiRoute>, Error>;

    /// Makes guest writes at `address` signal `event`.
    fn register_doorbell(
        &self,
        address: DoorbellAddress,
        matching: DoorbellMatch,
        event: BorrowedFd<'_>,
    ) -> Result<Box<dyn Doorbell>, Error>;

    /// Raises an NMI on a VP.
    fn inject_nmi(&self, vp: VpIndex) -> Result<(), Error>;

    /// Stops the guest's paravirtual clock and time stamp counters. All VPs are stopped.
    fn stop_clock(&self) -> Result<(), Error>;

    /// Lets them go on from where they stood.
    fn start_clock(&self) -> Result<(), Error>;

    /// Returns partition-wide state (interrupt controllers, timers) to power-on. All VPs are stopped.
    fn reset(&self) -> Result<(), Error>;

    /// Reads partition-wide state. All VPs are stopped.
    fn save(&self) -> Result<PartitionState, Error>;

    /// Writes partition-wide state. All VPs are stopped.
    fn restore(&self, state: &PartitionState) -> Result<(), Error>;

    /// What a person debugging the VM wants to see.
    fn inspect(&self) -> serde_json::Value;
}
