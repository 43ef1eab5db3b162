/// Why tables cannot be built or placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// A machine needs a processor.
    #[error("the machine has no processor")]
    NoProcessors,
    /// More processors than the DSDT's names reach.
    #[error(
        "{count} processors are more than the {} that ACPI tables can name",
        crate::platform::MAX_PROCESSORS
    )]
    TooManyProcessors {
        /// How many there are.
        count: usize,
    },
    /// Two processors with one UID, or the UID that means all processors.
    #[error("processor UID {uid} is used twice or reserved")]
    ProcessorUid {
        /// The UID.
        uid: u32,
    },
    /// Two processors with one APIC id, or the broadcast id.
    #[error("APIC id {apic_id} is used twice or reserved")]
    ApicId {
        /// The id.
        apic_id: u32,
    },
    /// Two serial ports with one number, or a number that is not 1 to 4.
    #[error("serial port COM{number} is named twice or is none of COM1 to COM4")]
    ComNumber {
        /// The number.
        number: u8,
    },
    /// Ports past 0xFFFF.
    #[error("{len} ports of {device} from {base:#x} go past the last port")]
    Ports {
        /// Whose ports.
        device: &'static str,
        /// First port.
        base: u16,
        /// How many.
        len: u16,
    },
    /// Not an ISA interrupt.
    #[error("interrupt {irq} of {device} is not an ISA interrupt (0 to 15)")]
    Irq {
        /// Whose interrupt.
        device: &'static str,
        /// The interrupt.
        irq: u8,
    },
    /// An empty or unaligned MMIO window.
    #[error("MMIO window {start:#x}-{end:#x} is empty or not made of whole pages")]
    MmioWindow {
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
    },
    /// The PCI window for 32-bit addresses goes past them.
    #[error("the low PCI window ends at {end:#x}, above 4 GiB")]
    PciLowWindow {
        /// First address after it.
        end: u64,
    },
    /// An ECAM that is not below 4 GiB or not aligned to a bus.
    #[error("the PCI configuration space at {base:#x} is not below 4 GiB or not aligned to 1 MiB")]
    Ecam {
        /// Its first address.
        base: u64,
    },
    /// A window for PCI functions' ports that cannot be.
    #[error("PCI I/O window {first:#x}-{last:#x} is empty or holds the configuration ports")]
    IoWindow {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// There are no eight interrupts from this one.
    #[error("PCI interrupts cannot start at {first}")]
    PciInterrupts {
        /// The lowest interrupt.
        first: u32,
    },
    /// The bytes written by `_PTS` and `_WAK` cannot be told apart.
    #[error(
        "sleep announcements {prepare:#04x} and {wake:#04x} are not two values of the high four bits"
    )]
    SleepAnnouncements {
        /// For going to sleep.
        prepare: u8,
        /// For waking.
        wake: u8,
    },
    /// A general-purpose event that does not exist.
    #[error("general-purpose event {event} is not one of 0 to 15")]
    Event {
        /// The event.
        event: u8,
    },
    /// Tables that need a firmware to find a place for the generation ID.
    #[error("ACPI tables with a generation ID cannot be placed without a table-loader script")]
    GenerationIdUnplaced,
    /// More tables than a table-loader script can name.
    #[error("ACPI tables of {size} bytes are too large for a table-loader script")]
    LoaderOverflow {
        /// What they need, in bytes.
        size: usize,
    },
    /// The tables do not fit their region.
    #[error(
        "ACPI tables need {size} bytes; their region has {} bytes",
        crate::REGION_SIZE
    )]
    RegionOverflow {
        /// What they need, in bytes.
        size: usize,
    },
    /// A region that is not page-aligned or not below 4 GiB.
    #[error(
        "ACPI tables cannot be placed at {base:#x}: the region must be page-aligned and below 4 GiB"
    )]
    RegionAddress {
        /// The region's address.
        base: u64,
    },
}
