use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::MsiMessage;
use guest_memory::MemoryRange;
use virt::MappingAccess;
use virt::VpStop;

/// Something that was done to the partition, or that a guest did. VPs are given by their index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the calls and steps")]
pub enum Event {
    /// [`virt::Partition::map`], also for the RAM of a new partition.
    Map {
        range: MemoryRange,
        access: MappingAccess,
    },
    /// [`virt::Partition::unmap`].
    Unmap { range: MemoryRange },
    /// A device drove an interrupt line.
    SetLine { gsi: u32, high: bool },
    /// [`virt::Partition::route_line`].
    RouteLine { gsi: u32, msi: Option<MsiMessage> },
    /// [`virt::Partition::assert_line`].
    AssertLine { gsi: u32 },
    /// An MSI was raised. Those that come by eventfd are found when somebody looks at the events or changes the vector.
    Msi(MsiMessage),
    /// A doorbell was registered.
    RegisterDoorbell {
        address: DoorbellAddress,
        matching: DoorbellMatch,
    },
    /// A doorbell was dropped.
    DropDoorbell {
        address: DoorbellAddress,
        matching: DoorbellMatch,
    },
    /// A guest's write rang a doorbell.
    RingDoorbell { vp: u32, address: DoorbellAddress },
    /// [`virt::Partition::stop_clock`].
    StopClock,
    /// [`virt::Partition::start_clock`].
    StartClock,
    /// [`virt::Partition::reset`].
    ResetPartition,
    /// [`virt::Partition::save`].
    SavePartition,
    /// [`virt::Partition::restore`].
    RestorePartition,
    /// [`virt::VpBinder::bind`].
    Bind { vp: u32 },
    /// [`virt::Vp::run`] was called.
    Enter { vp: u32 },
    /// [`virt::Vp::run`] returns; `None` where it fails.
    Leave { vp: u32, stop: Option<VpStop> },
    /// [`virt::Vp::set_registers`].
    SetRegisters { vp: u32 },
    /// [`virt::Vp::set_msrs`].
    SetMsrs { vp: u32, msrs: Vec<(u32, u64)> },
    /// [`virt::Vp::reset`].
    ResetVp { vp: u32 },
    /// [`virt::Vp::save`].
    SaveVp { vp: u32 },
    /// [`virt::Vp::restore`].
    RestoreVp { vp: u32 },
    /// The guest read a port, and got this.
    PortRead { vp: u32, port: u16, data: Vec<u8> },
    /// The guest wrote to a port.
    PortWritten { vp: u32, port: u16, data: Vec<u8> },
    /// The guest read memory or MMIO, and got this.
    MemoryRead { vp: u32, gpa: u64, data: Vec<u8> },
    /// The guest wrote to memory or MMIO.
    MemoryWritten { vp: u32, gpa: u64, data: Vec<u8> },
    /// The guest read an MSR, and got this; `None` is #GP.
    MsrRead {
        vp: u32,
        index: u32,
        value: Option<u64>,
    },
    /// The guest wrote to an MSR; not accepted is #GP.
    MsrWritten {
        vp: u32,
        index: u32,
        value: u64,
        accepted: bool,
    },
    /// The guest ended an interrupt.
    InterruptEnded { vp: u32, vector: u8 },
    /// A call broke the contract of its trait, and failed for it.
    ContractBroken(String),
}
