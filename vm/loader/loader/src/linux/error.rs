use crate::ImageFileError;
use acpi_spec::AcpiError;
use std::path::Path;
use std::path::PathBuf;

/// Why a kernel file cannot be loaded: what follows its name in [`LoadError::Kernel`].
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] ImageFileError),
    /// It is empty.
    #[error("is an empty file")]
    Empty,
    /// It is something else.
    #[error("is not a Linux kernel (bzImage or ELF) but {found}")]
    NotAKernel {
        /// What it is instead.
        found: &'static str,
    },
    /// It is not for x86-64.
    #[error("is not for x86-64: it is {found}")]
    WrongArchitecture {
        /// What it is instead.
        found: String,
    },
    /// The boot protocol is older than 2.12, which brought the 64-bit entry.
    #[error("has boot protocol {}.{:02}; 2.12 or newer is needed", version >> 8, version & 0xff)]
    OldProtocol {
        /// Its version, major in the high byte.
        version: u16,
    },
    /// It wants to be loaded below 1 MiB.
    #[error("is a zImage, which loads below 1 MiB; a bzImage is needed")]
    NotLoadedHigh,
    /// It has no 64-bit entry.
    #[error("has no 64-bit entry point (xloadflags {xloadflags:#x}): it is a 32-bit kernel")]
    No64BitEntry {
        /// The flags in the setup header.
        xloadflags: u16,
    },
    /// The setup header has an invalid length.
    #[error("has a setup header that ends at {end:#x}, not between {min:#x} and {max:#x}")]
    SetupHeader {
        /// The end that it states, as an offset into the file.
        end: u64,
        /// The lowest valid end.
        min: u64,
        /// The highest valid end.
        max: u64,
    },
    /// The compressed payload is outside the code.
    #[error("has a payload of {length} bytes at {offset:#x}, outside its {code} bytes of code")]
    Payload {
        /// The payload's offset into the code.
        offset: u64,
        /// Its length, in bytes.
        length: u64,
        /// The code's length, in bytes.
        code: u64,
    },
    /// The alignment is not a power of two, or is too large.
    #[error("has alignment {alignment:#x}, which is not a power of two up to 1 GiB")]
    Alignment {
        /// The alignment, in bytes.
        alignment: u64,
    },
    /// The file ends early.
    #[error("is truncated: {part} ends at {end:#x}, the file at {len:#x}")]
    Truncated {
        /// The part that is cut off.
        part: &'static str,
        /// Where that part ends, as an offset into the file.
        end: u64,
        /// The file's length.
        len: u64,
    },
    /// A field of an ELF header has an invalid value.
    #[error("has {value:#x} in ELF field {field}: {expected}")]
    ElfHeader {
        /// The field, by its name in the ELF specification.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is expected instead.
        expected: &'static str,
    },
    /// Two ELF segments share memory.
    #[error("is damaged: ELF segments at {first:#x} and {second:#x} overlap")]
    SegmentsOverlap {
        /// Address of the lower one.
        first: u64,
        /// Address of the higher one.
        second: u64,
    },
    /// The entry is outside the segments.
    #[error("is damaged: its entry {entry:#x} is not in any of its segments")]
    Entry {
        /// The entry's address.
        entry: u64,
    },
    /// PVH was requested, but the file has no PVH entry.
    #[error("has no PVH entry: {reason}")]
    NoPvhEntry {
        /// Why not.
        reason: &'static str,
    },
    /// The ELF notes cannot be parsed.
    #[error("is damaged: the ELF note at {offset:#x} is malformed")]
    Notes {
        /// The note's offset into the file.
        offset: u64,
    },
    /// It asks for addresses below 1 MiB, where the boot data goes.
    #[error("asks for address {start:#x}; it must be loaded at 1 MiB or above")]
    TooLow {
        /// The address.
        start: u64,
    },
    /// It does not fit into RAM.
    #[error(
        "needs {size} bytes of RAM from {start:#x}, but RAM ends at {ram_end:#x}: give the guest more memory"
    )]
    TooLarge {
        /// First address of the RAM that it needs.
        start: u64,
        /// The size of that RAM, in bytes.
        size: u64,
        /// Where RAM ends.
        ram_end: u64,
    },
}

/// Why Linux cannot be booted. All of this is found before anything is imported.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be opened or read.
    #[error(transparent)]
    File(#[from] ImageFileError),
    /// The kernel file cannot be loaded.
    #[error("kernel {} {problem}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: KernelError,
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
    Acpi(#[from] AcpiError),
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

impl LoadError {
    pub(super) fn kernel(path: &Path, problem: KernelError) -> Self {
        match problem {
            // It names the file itself.
            KernelError::File(error) => Self::File(error),
            problem => Self::Kernel {
                path: path.into(),
                problem,
            },
        }
    }
}

#[cfg(test)]
#[path = "error_test.rs"]
mod tests;
