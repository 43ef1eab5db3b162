/// Why tables cannot be built or placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A machine needs a processor.
    #[error("the machine has no processor")]
    NoProcessors,
    /// More processors than the DSDT's names reach.
    #[error(
        "{count} processors are more than the {} that ACPI tables can name",
        crate::machine::MAX_PROCESSORS
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
