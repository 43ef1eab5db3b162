//! What guest RAM can be made of.

use std::io;
use std::path::PathBuf;

/// The size of the pages that [`MemorySource::HugePages`] is made of, in bytes.
pub const HUGE_PAGE: u64 = 2 << 20;

/// What guest RAM is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryBacking {
    /// Where the bytes are.
    pub source: MemorySource,
    /// Take all of it from the host before the VM starts, instead of page by page as the guest touches it.
    pub prealloc: bool,
}

/// Where the bytes of guest RAM are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MemorySource {
    /// Memory of the process, in transparent huge pages where the host has some.
    #[default]
    Anonymous,
    /// Pages of 2 MiB from the host's pool (`/proc/sys/vm/nr_hugepages`), reserved at once.
    HugePages,
    /// A file, shared with whoever else maps it: RAM ranges follow one another in it, ascending.
    ///
    /// It is created with mode 0600 if absent, and filled to its size if empty; otherwise it must have the size of
    /// guest RAM, and its content is what the guest finds. Its space is reserved, and it is locked
    /// (`flock`) against other VMs for as long as the memory exists.
    File(PathBuf),
}

/// Why guest RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has no such memory to give.
    #[error("failed to map {size} bytes of guest memory")]
    Map {
        /// Bytes asked for.
        size: u64,
        /// What the host said.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    /// The pool of huge pages is too small.
    #[error(
        "failed to take {size} bytes from the host's 2 MiB huge pages; \
         `sysctl vm.nr_hugepages` says how many there are, and sets it"
    )]
    HugePages {
        /// Bytes asked for.
        size: u64,
        /// What the host said.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    /// Guest RAM is not made of whole huge pages.
    #[error("guest memory of {size} bytes at {gpa:#x} is not a multiple of 2 MiB huge pages")]
    NotHugePages {
        /// Where the range starts in the guest.
        gpa: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// A device's memory is empty, or reaches past the end of the address space.
    #[error("{size} bytes at {gpa:#x} are no place for a device's memory")]
    DeviceRegion {
        /// Where it was to start in the guest.
        gpa: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// Memory was promised, and could not be had when taken.
    #[error("failed to preallocate {size} bytes of guest memory")]
    Preallocate {
        /// Bytes asked for.
        size: u64,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The memory file cannot be used.
    #[error("failed to {operation} the memory file {}", path.display())]
    File {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The memory file is no regular file.
    #[error("the memory file {} is not a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Another VM uses the memory file.
    #[error("the memory file {} is in use by another VM", path.display())]
    FileInUse {
        /// The file.
        path: PathBuf,
    },
    /// The memory file has content of another size.
    #[error(
        "the memory file {} has {found} bytes, guest memory {expected}; \
         remove it, or give it that size",
        path.display()
    )]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The size of guest RAM in bytes.
        expected: u64,
    },
}
