//! What the firmware is told.

use crate::flags::UefiFlags;
use crate::smbios::SmbiosProcessor;
use crate::smbios::SmbiosStrings;
use std::ops::Range;
use uuid::Uuid;

/// The number of random bytes that the firmware is given.
pub const ENTROPY_LEN: usize = 64;

/// All that the firmware is told of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UefiConfig {
    /// The size of the firmware's image, in pages of 4 KiB.
    pub image_pages: u32,
    /// The RAM ranges, ascending.
    pub memory_map: Vec<MemoryEntry>,
    /// Random bytes for the firmware and the operating system. Fresh for each boot.
    pub entropy: [u8; ENTROPY_LEN],
    /// The machine's UUID, which SMBIOS has as the system's. The same for the machine's whole life.
    pub bios_guid: Uuid,
    /// What the machine has, and how the firmware behaves.
    pub flags: UefiFlags,
    /// The processors.
    pub processors: ProcessorCounts,
    /// The MMIO gap that ends at or below 4 GiB. It may be empty.
    pub low_mmio: Range<u64>,
    /// The MMIO gap above 4 GiB. It may be empty.
    pub high_mmio: Range<u64>,
    /// Strings for SMBIOS.
    pub smbios: SmbiosStrings,
    /// Numbers for SMBIOS.
    pub smbios_processor: Option<SmbiosProcessor>,
    /// ACPI tables, with lengths and checksums, but neither RSDP nor XSDT.
    pub acpi_tables: Vec<Vec<u8>>,
    /// The number of NVDIMMs.
    pub nvdimms: Option<u16>,
    /// The only virtual PCI device to boot from; for NVMe, also only its first namespace.
    pub vpci_instance: Option<Uuid>,
    /// The interrupt controller of an aarch64 machine.
    pub gic: Option<GicBases>,
    /// Where PCIe devices may have memory, by host bridge.
    pub pcie: Vec<PcieApertures>,
}

/// A range of RAM.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct MemoryEntry {
    /// Its guest-physical address.
    pub base: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What it is for.
    pub usage: MemoryUse,
}

/// What a range of RAM is for. The values are those of the memory map.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum MemoryUse {
    /// For everything.
    #[default]
    Ram = 0,
    /// For the platform, not for the operating system.
    Reserved = 1,
    /// Its content outlives the machine.
    Persistent = 2,
    /// For what asks for it.
    SpecificPurpose = 4,
}

/// The numbers of processors. None is 0.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ProcessorCounts {
    /// How many there can be.
    pub max: u32,
    /// How many there are.
    pub count: u32,
    /// How many are in a socket.
    pub per_socket: u32,
    /// How many threads a core has.
    pub threads_per_core: u32,
}

/// The addresses of a GICv3.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct GicBases {
    /// The distributor's.
    pub distributor: u64,
    /// The redistributors'.
    pub redistributors: u64,
}

/// Where the PCIe devices of a host bridge may have memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcieApertures {
    /// The PCI segment.
    pub segment: u16,
    /// The bridge's first bus.
    pub first_bus: u8,
    /// The bridge's last bus.
    pub last_bus: u8,
    /// The bridge's `_UID` in the ACPI tables.
    pub uid: u32,
    /// The window below 4 GiB. It may be empty.
    pub low: Range<u64>,
    /// The window above 4 GiB. It may be empty.
    pub high: Range<u64>,
}
