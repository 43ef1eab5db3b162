use crate::structure::StructureType;

/// Why there is no blob for a configuration: the firmware would stop at it, or would take it for something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The memory map is empty.
    #[error("the firmware's memory map is empty")]
    NoMemory,
    /// A range of the memory map is not one of whole pages, or ends past the address space.
    #[error("the memory map's range at {base:#x} with {len:#x} bytes is not one of whole pages")]
    MemoryRange {
        /// Its start.
        base: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The memory map does not ascend, or its ranges overlap.
    #[error("the memory map's range at {base:#x} does not come after the one before it")]
    MemoryOrder {
        /// The start of the range.
        base: u64,
    },
    /// RAM is in an MMIO gap or in a window of PCI functions.
    #[error("the memory map's range at {base:#x} overlaps {what} at {start:#x}-{end:#x}")]
    MemoryInMmio {
        /// The start of the range.
        base: u64,
        /// What it overlaps.
        what: &'static str,
        /// The start of that.
        start: u64,
        /// The first address after it.
        end: u64,
    },
    /// A gap or window is where it cannot be.
    #[error("{what} at {start:#x}-{end:#x} is not {rule}")]
    Gap {
        /// What it is.
        what: &'static str,
        /// Its start.
        start: u64,
        /// The first address after it.
        end: u64,
        /// What it has to be.
        rule: &'static str,
    },
    /// A number of processors is 0, or there are more than the maximum.
    #[error(
        "{count} processors of at most {max}, {per_socket} in a socket and {threads} in a core, are impossible"
    )]
    Processors {
        /// The maximum number.
        max: u32,
        /// The number.
        count: u32,
        /// The number in a socket.
        per_socket: u32,
        /// The number of threads in a core.
        threads: u32,
    },
    /// A string has characters that SMBIOS does not.
    #[error("the string for {kind:?}, {text:?}, is not printable ASCII")]
    Characters {
        /// What the string is for.
        kind: StructureType,
        /// The string.
        text: String,
    },
    /// The firmware would cut a string off.
    #[error("the string for {kind:?} has {len} characters; at most {max} are possible")]
    StringTooLong {
        /// What the string is for.
        kind: StructureType,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// An ACPI table is shorter than its header.
    #[error("an ACPI table of {len} bytes is shorter than a table's header")]
    ShortTable {
        /// Its length in bytes.
        len: usize,
    },
    /// The firmware makes this ACPI table itself.
    #[error("the ACPI table {name} cannot be given to the firmware, which makes it itself")]
    OwnTable {
        /// The table's signature.
        name: String,
    },
    /// An ACPI table's header states another length.
    #[error("the ACPI table {name} states {stated} bytes and has {len}")]
    TableLength {
        /// The table's signature.
        name: String,
        /// The length in the header.
        stated: u32,
        /// Its length in bytes.
        len: usize,
    },
    /// An ACPI table's checksum is wrong.
    #[error("the sum of the ACPI table {name} is {sum:#04x} instead of 0")]
    TableChecksum {
        /// The table's signature.
        name: String,
        /// The sum of its bytes.
        sum: u8,
    },
    /// Buses of a PCIe aperture are in the wrong order.
    #[error("the PCIe apertures for buses {first:#04x} to {last:#04x} have no bus")]
    Buses {
        /// The first bus.
        first: u8,
        /// The last bus.
        last: u8,
    },
    /// The blob is longer than its own length fields can say.
    #[error("the firmware's configuration is {len} bytes long; at most {max} are possible")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
}
