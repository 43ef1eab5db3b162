//! The kinds of host memory for guest RAM.

use std::io;
use std::path::PathBuf;

/// The page size of [`MemorySource::HugePages`], in bytes.
pub const HUGE_PAGE: u64 = 2 << 20;

/// The host memory for guest RAM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryBacking {
    /// The kind of memory.
    pub source: MemorySource,
    /// Allocate all pages before the VM starts, instead of when the guest first accesses them.
    pub prealloc: bool,
}

/// The kind of host memory for guest RAM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MemorySource {
    /// Anonymous memory, in transparent huge pages if the host supports them.
    #[default]
    Anonymous,
    /// 2 MiB pages from the host's pool (`/proc/sys/vm/nr_hugepages`), all reserved at creation.
    HugePages,
    /// A file, mapped shared. It contains the RAM ranges one after another, ascending.
    ///
    /// A file that does not exist is created with mode 0600. A file that is empty is extended; any other must have the
    /// size of guest RAM, and its content is the initial content of RAM. Its space is reserved, and it is locked
    /// (`flock`) against other VMs for as long as the memory exists.
    File(PathBuf),
}

/// Why guest RAM or device memory could not be created.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host cannot map the memory.
    #[error("failed to map {size} bytes of guest memory")]
    Map {
        /// Size in bytes.
        size: u64,
        /// The host's error.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    /// The pool of huge pages is too small.
    #[error(
        "failed to reserve {size} bytes of the host's 2 MiB huge pages; \
         check and set their number with `sysctl vm.nr_hugepages`"
    )]
    HugePages {
        /// Size in bytes.
        size: u64,
        /// The host's error.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    /// A range of guest RAM is not aligned to huge pages.
    #[error("guest memory of {size} bytes at {gpa:#x} is not a multiple of 2 MiB huge pages")]
    NotHugePages {
        /// Start of the range.
        gpa: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// A device's memory is empty, or extends past the end of the address space.
    #[error("invalid range for device memory: {size} bytes at {gpa:#x}")]
    DeviceRegion {
        /// Start of the range.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The memory was mapped, but its pages could not be allocated.
    #[error("failed to preallocate {size} bytes of guest memory")]
    Preallocate {
        /// Size in bytes.
        size: u64,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// An operation on the memory file failed.
    #[error("failed to {operation} the memory file {}", path.display())]
    File {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// The memory file is not a regular file.
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
    /// The memory file is not empty and has another size.
    #[error(
        "the memory file {} has {found} bytes, but guest memory has {expected}; \
         remove the file, or configure the VM with that much memory",
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
