use crate::FileError;
use acpi_spec::AcpiError;
use std::path::PathBuf;
use vm_memory::GuestMemoryError;

/// Why a kernel cannot be loaded.
///
/// Only [`LoadError::Write`] and [`FileError::ReadInto`] can arise once guest memory is being written.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be opened or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kernel file has no byte.
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
        /// What it is.
        found: &'static str,
    },
    /// The kernel is not for x86-64.
    #[error("kernel {} is not for x86-64: it is {found}", path.display())]
    WrongArchitecture {
        /// The file.
        path: PathBuf,
        /// What it is.
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
    /// The setup header's length is impossible.
    #[error("kernel {}: its setup header ends at {end:#x}, not between {min:#x} and {max:#x}", path.display())]
    SetupHeader {
        /// The file.
        path: PathBuf,
        /// Where it says it ends, an offset in the file.
        end: u64,
        /// The least possible.
        min: u64,
        /// The most possible.
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
    /// The kernel's alignment is no power of two, or absurd.
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
        /// What is not all there.
        part: &'static str,
        /// Where that ends, an offset in the file.
        end: u64,
        /// The file's length.
        len: u64,
    },
    /// A field of an ELF header is impossible.
    #[error("kernel {}: ELF {field} is {value:#x}; {expected}", path.display())]
    ElfHeader {
        /// The file.
        path: PathBuf,
        /// The field, by its name in the ELF specification.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it should be.
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
    /// A kernel's entry is not in what is loaded.
    #[error("kernel {}: its entry {entry:#x} is not in any of its segments", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's address.
        entry: u64,
    },
    /// PVH was asked for, and the file has no PVH entry.
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
        /// Where, an offset in the file.
        offset: u64,
    },
    /// The kernel asks for addresses below 1 MiB, where its boot data lie.
    #[error("kernel {} asks for address {start:#x}; it must be loaded at 1 MiB or above", path.display())]
    KernelTooLow {
        /// The file.
        path: PathBuf,
        /// The address.
        start: u64,
    },
    /// The kernel does not fit RAM.
    #[error("kernel {} needs {size} bytes of RAM from {start:#x}, but RAM ends at {ram_end:#x}: give the guest more memory", path.display())]
    KernelTooLarge {
        /// The file.
        path: PathBuf,
        /// From where it needs RAM.
        start: u64,
        /// How much, in bytes.
        size: u64,
        /// Where RAM ends.
        ram_end: u64,
    },
    /// The initrd file has no byte.
    #[error("initrd {} is an empty file", path.display())]
    InitrdEmpty {
        /// The file.
        path: PathBuf,
    },
    /// The initrd fits no place that the kernel can reach.
    #[error("initrd {} of {size} bytes fits nowhere below {end:#x} beside the kernel at {kernel_start:#x}-{kernel_end:#x}: give the guest more memory", path.display())]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes.
        size: u64,
        /// Up to where the kernel reads an initrd and RAM goes.
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
    /// The command line has a NUL, where the kernel would take it to end.
    #[error("the kernel command line has a NUL at byte {position}")]
    CommandLineNul {
        /// Where.
        position: usize,
    },
    /// The ACPI tables cannot be placed.
    #[error("cannot place the ACPI tables")]
    Acpi(#[from] AcpiError),
    /// The memory layout has no RAM at 0, or none above 1 MiB.
    #[error("the memory layout has no RAM from address 0 to above 1 MiB")]
    NoLowRam,
    /// The memory map has more entries than fit the boot parameters.
    #[error("the memory map has {count} entries, more than the 128 that the boot parameters hold")]
    TooManyRamRanges {
        /// How many.
        count: usize,
    },
    /// The guest's memory has no RAM where its layout says so.
    #[error("guest memory has no RAM at {start:#x}-{end:#x}, where {what} goes")]
    NoRam {
        /// What was to go there.
        what: &'static str,
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
    },
    /// Guest memory cannot be written.
    #[error("cannot write {what} to guest memory at {gpa:#x}")]
    Write {
        /// What.
        what: &'static str,
        /// Where.
        gpa: u64,
        /// What failed.
        source: GuestMemoryError,
    },
}
