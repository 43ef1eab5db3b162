use crate::FileError;
use acpi_spec::BuildError;
use std::path::PathBuf;

/// Why a kernel cannot be loaded. All of this is found before anything is imported.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be opened or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kernel file is empty.
    #[error("kernel {} is an empty file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The kernel file is something else.
    #[error("{} is not a Linux kernel (bzImage or ELF) but {found}", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// The kernel is not for x86-64.
    #[error("kernel {} is not for x86-64: it is {found}", path.display())]
    WrongArchitecture {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// The kernel's boot protocol is older than 2.12, which brought the 64-bit entry.
    #[error("kernel {} has boot protocol {}.{:02}; 2.12 or newer is needed", path.display(), version >> 8, version & 0xff)]
    OldProtocol {
        /// The file.
        path: PathBuf,
        /// Its version, major in the high byte.
        version: u16,
    },
    /// The kernel wants to be loaded below 1 MiB.
    #[error("kernel {} is a zImage, which loads below 1 MiB; a bzImage is needed", path.display())]
    NotLoadedHigh {
        /// The file.
        path: PathBuf,
    },
    /// The kernel has no 64-bit entry.
    #[error("kernel {} has no 64-bit entry point (xloadflags {xloadflags:#x}): it is a 32-bit kernel", path.display())]
    No64BitEntry {
        /// The file.
        path: PathBuf,
        /// The header's flags.
        xloadflags: u16,
    },
    /// The setup header has an invalid length.
    #[error("kernel {}: its setup header ends at {end:#x}, not between {min:#x} and {max:#x}", path.display())]
    SetupHeader {
        /// The file.
        path: PathBuf,
        /// The end that it states, as an offset into the file.
        end: u64,
        /// The lowest valid end.
        min: u64,
        /// The highest valid end.
        max: u64,
    },
    /// The kernel's compressed payload is not in its code.
    #[error("kernel {}: its payload of {length} bytes at {offset:#x} is outside its {code} bytes of code", path.display())]
    Payload {
        /// The file.
        path: PathBuf,
        /// The payload's offset in the code.
        offset: u64,
        /// Its length, in bytes.
        length: u64,
        /// The code's length, in bytes.
        code: u64,
    },
    /// The kernel's alignment is not a power of two, or is too large.
    #[error("kernel {}: alignment {alignment:#x} is not a power of two up to 1 GiB", path.display())]
    KernelAlignment {
        /// The file.
        path: PathBuf,
        /// The alignment, in bytes.
        alignment: u64,
    },
    /// A file ends early.
    #[error("{} is truncated: {part} ends at {end:#x}, the file at {len:#x}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that is cut off.
        part: &'static str,
        /// Where that part ends, as an offset into the file.
        end: u64,
        /// The file's length.
        len: u64,
    },
    /// A field of an ELF header has an invalid value.
    #[error("kernel {}: ELF {field} is {value:#x}; {expected}", path.display())]
    ElfHeader {
        /// The file.
        path: PathBuf,
        /// The field, by its name in the ELF specification.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is expected instead.
        expected: &'static str,
    },
    /// Two segments of an ELF file share memory.
    #[error("kernel {}: ELF segments at {first:#x} and {second:#x} overlap", path.display())]
    SegmentsOverlap {
        /// The file.
        path: PathBuf,
        /// Address of the lower one.
        first: u64,
        /// Address of the higher one.
        second: u64,
    },
    /// A kernel's entry is outside its segments.
    #[error("kernel {}: its entry {entry:#x} is not in any of its segments", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's address.
        entry: u64,
    },
    /// PVH was requested, but the file has no PVH entry.
    #[error("kernel {} has no PVH entry: {reason}", path.display())]
    NoPvhEntry {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The ELF notes cannot be read.
    #[error("kernel {}: the ELF note at {offset:#x} is malformed", path.display())]
    Notes {
        /// The file.
        path: PathBuf,
        /// The note's offset into the file.
        offset: u64,
    },
    /// The kernel asks for addresses below 1 MiB, where its boot data goes.
    #[error("kernel {} asks for address {start:#x}; it must be loaded at 1 MiB or above", path.display())]
    KernelTooLow {
        /// The file.
        path: PathBuf,
        /// The address.
        start: u64,
    },
    /// The kernel does not fit into RAM.
    #[error("kernel {} needs {size} bytes of RAM from {start:#x}, but RAM ends at {ram_end:#x}: give the guest more memory", path.display())]
    KernelTooLarge {
        /// The file.
        path: PathBuf,
        /// First address of the RAM that it needs.
        start: u64,
        /// The size of that RAM, in bytes.
        size: u64,
        /// Where RAM ends.
        ram_end: u64,
    },
    /// The initrd file is empty.
    #[error("initrd {} is an empty file", path.display())]
    InitrdEmpty {
        /// The file.
        path: PathBuf,
    },
    /// No free range that the kernel can read is large enough for the initrd.
    #[error("initrd {} of {size} bytes fits nowhere below {end:#x} beside the kernel at {kernel_start:#x}-{kernel_end:#x}: give the guest more memory", path.display())]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes.
        size: u64,
        /// First address that the kernel cannot read an initrd from, or that is not RAM.
        end: u64,
        /// Where the kernel's memory starts.
        kernel_start: u64,
        /// Where it ends.
        kernel_end: u64,
    },
    /// The command line is too long.
    #[error("the kernel command line has {len} bytes; this kernel takes {limit}")]
    CommandLineTooLong {
        /// Its length, in bytes.
        len: usize,
        /// The most this kernel takes, in bytes.
        limit: usize,
    },
    /// The command line contains a NUL, at which the kernel would end it.
    #[error("the kernel command line has a NUL at byte {position}")]
    CommandLineNul {
        /// Offset of the NUL, in bytes.
        position: usize,
    },
    /// The ACPI tables cannot be placed.
    #[error("cannot place the ACPI tables")]
    Acpi(#[from] BuildError),
    /// The memory layout has no RAM at 0, or none above 1 MiB.
    #[error("the memory layout has no RAM from address 0 to above 1 MiB")]
    NoLowRam,
    /// The memory map has more entries than fit the boot parameters.
    #[error("the memory map has {count} entries, more than the 128 that the boot parameters hold")]
    TooManyRamRanges {
        /// The number of entries.
        count: usize,
    },
}

#[cfg(test)]
#[path = "error_test.rs"]
mod tests;
