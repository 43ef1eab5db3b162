//! The kinds of host memory for guest RAM.

use crate::MemoryLayout;
use crate::MemoryRange;
use std::io;
use std::path::PathBuf;

/// The size of a huge page that the processor and the host use without a pool, in bytes.
pub const HUGE_PAGE: u64 = 2 << 20;

/// The host memory for guest RAM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryBacking {
    /// The kind of memory.
    pub source: MemorySource,
    /// The pages that it consists of. A file has those of its file system.
    pub pages: PageKind,
    /// Allocate all pages before the VM starts, instead of when the guest first accesses them.
    pub prealloc: bool,
}

/// The pages of the host that guest RAM consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageKind {
    /// Small pages, and transparent huge pages if the host has them.
    #[default]
    Transparent,
    /// Small pages only.
    Small,
    /// 2 MiB pages from the host's pool (`/sys/kernel/mm/hugepages`), all reserved at creation.
    Huge2M,
    /// 1 GiB pages from the host's pool, all reserved at creation.
    Huge1G,
}

impl PageKind {
    /// Fails if guest RAM cannot consist of whole pages.
    pub fn check(self, layout: &MemoryLayout) -> Result<(), MemoryError> {
        let Some(page) = self.pool_size() else {
            return Ok(());
        };
        let wrong = |range: &&MemoryRange| {
            !range.len().is_multiple_of(page) || !range.start.is_multiple_of(page)
        };
        match layout.ram().iter().find(wrong) {
            None => Ok(()),
            Some(range) => Err(MemoryError::NotHugePages {
                page,
                gpa: range.start,
                size: range.len(),
            }),
        }
    }

    /// The size in bytes of the pages of a pool.
    pub(crate) fn pool_size(self) -> Option<u64> {
        match self {
            Self::Transparent | Self::Small => None,
            Self::Huge2M => Some(2 << 20),
            Self::Huge1G => Some(1 << 30),
        }
    }
}

/// The kind of host memory for guest RAM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MemorySource {
    /// Anonymous memory.
    #[default]
    Anonymous,
    /// A memory file without a name (`memfd`), mapped shared. It contains the RAM ranges one after another, ascending.
    Shared,
    /// A file, mapped shared. It contains the RAM ranges one after another, ascending.
    ///
    /// A file that does not exist is created with mode 0600. A file that is empty is extended; any other must have the
    /// size of guest RAM, and its content is the initial content of RAM. Its space is reserved, and it is locked
    /// (`flock`) against other VMs for as long as the memory exists.
    File(PathBuf),
    /// The file with the RAM of a saved machine, mapped privately: it has the initial content, RAM ranges one after
    /// another, ascending, and is never written. Any number of VMs can use it at once. It may be longer than guest RAM.
    Saved(PathBuf),
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
        "failed to reserve {size} bytes of the host's huge pages; their number is in \
         /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
        page / 1024
    )]
    HugePages {
        /// Size in bytes.
        size: u64,
        /// The size of a page in bytes.
        page: u64,
        /// The host's error.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    /// A range of guest RAM is not aligned to huge pages.
    #[error(
        "guest memory of {size} bytes at {gpa:#x} is not a multiple of huge pages of {} MiB",
        page >> 20
    )]
    NotHugePages {
        /// The size of a page in bytes.
        page: u64,
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
    /// The host gives no memory file without a name.
    #[error("failed to create shared guest memory of {size} bytes")]
    Memfd {
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
