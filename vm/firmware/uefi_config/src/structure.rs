//! The kinds of structures.

/// The type of a structure.
///
/// Firmware also knows types of its own for some ACPI tables (SRAT is 0x02, MADT 0x18, and 0x20 to 0x22 and 0x24 to 0x27
/// are others), which it treats as [`AcpiTable`](Self::AcpiTable). They are not made here.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum StructureType {
    /// How many structures there are, and the sum of their lengths.
    StructureCount = 0x00,
    /// The size of the firmware's image.
    BiosInformation = 0x01,
    /// The RAM ranges.
    MemoryMap = 0x03,
    /// Random bytes.
    Entropy = 0x04,
    /// The machine's UUID.
    BiosGuid = 0x05,
    /// SMBIOS: the system's serial number.
    SystemSerial = 0x06,
    /// SMBIOS: the baseboard's serial number.
    BaseboardSerial = 0x07,
    /// SMBIOS: the chassis' serial number.
    ChassisSerial = 0x08,
    /// SMBIOS: the chassis' asset tag.
    ChassisAssetTag = 0x09,
    /// SMBIOS: the BIOS lock string.
    BiosLock = 0x0a,
    /// SMBIOS: the numbers of the processor's structure.
    Processor31 = 0x0b,
    /// SMBIOS: the socket's name.
    ProcessorSocket = 0x0c,
    /// SMBIOS: the processor's manufacturer.
    ProcessorManufacturer = 0x0d,
    /// SMBIOS: the processor's version.
    ProcessorVersion = 0x0e,
    /// SMBIOS: the processor's serial number.
    ProcessorSerial = 0x0f,
    /// SMBIOS: the processor's asset tag.
    ProcessorAssetTag = 0x10,
    /// SMBIOS: the processor's part number.
    ProcessorPartNumber = 0x11,
    /// What the machine has and how the firmware behaves: [`UefiFlags`](crate::UefiFlags).
    Flags = 0x12,
    /// The numbers of processors.
    ProcessorInformation = 0x13,
    /// The MMIO gaps.
    MmioRanges = 0x14,
    /// An ACPI table.
    AcpiTable = 0x16,
    /// The number of NVDIMMs.
    NvdimmCount = 0x17,
    /// The only virtual PCI device to boot from.
    VpciInstanceFilter = 0x19,
    /// SMBIOS: the system's manufacturer.
    SystemManufacturer = 0x1a,
    /// SMBIOS: the system's product name.
    SystemProduct = 0x1b,
    /// SMBIOS: the system's version.
    SystemVersion = 0x1c,
    /// SMBIOS: the system's SKU.
    SystemSku = 0x1d,
    /// SMBIOS: the system's family.
    SystemFamily = 0x1e,
    /// SMBIOS: the memory devices' serial number.
    MemorySerial = 0x1f,
    /// The interrupt controller of an aarch64 machine.
    Gic = 0x23,
    /// Where PCIe devices may have memory.
    PcieApertures = 0x28,
}

impl StructureType {
    /// The number in the blob.
    pub const fn number(self) -> u32 {
        self as u32
    }
}
