//! Errors.

/// Why tables cannot be built or placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// The platform has no processor.
    #[error("the machine has no processor")]
    NoProcessors,
    /// There are more processors than names in the DSDT.
    #[error(
        "{count} processors are more than the {} that ACPI tables can name",
        crate::platform::MAX_PROCESSORS
    )]
    TooManyProcessors {
        /// The number of processors.
        count: usize,
    },
    /// Two processors have the same UID, or one has the UID that means all processors.
    #[error("processor UID {uid} is used twice or reserved")]
    ProcessorUid {
        /// The UID.
        uid: u32,
    },
    /// Two processors have the same APIC id, or one has the broadcast id.
    #[error("APIC id {apic_id} is used twice or reserved")]
    ApicId {
        /// The id.
        apic_id: u32,
    },
    /// Two serial ports have the same number, or a number is not 1 to 4.
    #[error("serial port COM{number} is given twice or is not one of COM1 to COM4")]
    ComNumber {
        /// The number.
        number: u8,
    },
    /// Ports exceed 0xFFFF.
    #[error("{len} ports of {device} from {base:#x} exceed the last port, 0xffff")]
    Ports {
        /// The device.
        device: &'static str,
        /// First port.
        base: u16,
        /// The number of ports.
        len: u16,
    },
    /// Not an ISA interrupt.
    #[error("interrupt {irq} of {device} is not an ISA interrupt (0 to 15)")]
    Irq {
        /// The device.
        device: &'static str,
        /// The interrupt.
        irq: u8,
    },
    /// An MMIO window is empty or unaligned.
    #[error("MMIO window {start:#x}-{end:#x} is empty or does not consist of whole pages")]
    MmioWindow {
        /// First address.
        start: u64,
        /// The end: the first address after it.
        end: u64,
    },
    /// The PCI window for 32-bit addresses exceeds 4 GiB.
    #[error("the low PCI window ends at {end:#x}, above 4 GiB")]
    PciLowWindow {
        /// The end: the first address after it.
        end: u64,
    },
    /// The ECAM is not below 4 GiB or not aligned to the size of a bus.
    #[error("the PCI configuration space at {base:#x} is not below 4 GiB or not aligned to 1 MiB")]
    Ecam {
        /// Its first address.
        base: u64,
    },
    /// A PCI I/O window is empty or contains the configuration ports.
    #[error("PCI I/O window {first:#x}-{last:#x} is empty or contains the configuration ports")]
    IoWindow {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// The eight PCI interrupts exceed the GSI space.
    #[error("PCI interrupts cannot start at {first}")]
    PciInterrupts {
        /// The lowest interrupt.
        first: u32,
    },
    /// The flags of `_PTS` and `_WAK` are not distinct values of the high four bits.
    #[error(
        "sleep announcements {prepare:#04x} and {wake:#04x} are not distinct values of the high four bits"
    )]
    SleepAnnouncements {
        /// The flag of `_PTS`.
        prepare: u8,
        /// The flag of `_WAK`.
        wake: u8,
    },
    /// The general-purpose event does not exist.
    #[error("general-purpose event {event} is not one of 0 to 15")]
    Event {
        /// The event.
        event: u8,
    },
    /// Only firmware can allocate the memory of the generation ID.
    #[error("ACPI tables with a generation ID cannot be placed without a table-loader script")]
    GenerationIdUnplaced,
    /// The tables are too large for a table-loader script.
    #[error("ACPI tables of {size} bytes are too large for a table-loader script")]
    LoaderOverflow {
        /// Their size in bytes.
        size: usize,
    },
    /// The tables do not fit in their region.
    #[error(
        "ACPI tables need {size} bytes; their region has {} bytes",
        crate::REGION_SIZE
    )]
    RegionOverflow {
        /// Their size in bytes.
        size: usize,
    },
    /// The region is not page-aligned or not below 4 GiB.
    #[error(
        "ACPI tables cannot be placed at {base:#x}: the region must be page-aligned and below 4 GiB"
    )]
    RegionAddress {
        /// The region's address.
        base: u64,
    },
}
