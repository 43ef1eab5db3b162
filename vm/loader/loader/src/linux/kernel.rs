use linux_loader::bootparam::setup_header;
use std::ops::Range;

/// A part of a kernel file and its place in guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelSegment {
    pub file_offset: u64,
    pub file_len: u64,
    pub gpa: u64,
    /// At least `file_len`; what is more is zero.
    pub mem_len: u64,
}

impl KernelSegment {
    pub(super) fn range(&self) -> Range<u64> {
        self.gpa..self.gpa + self.mem_len
    }
}

/// Where a kernel is entered, and by which protocol.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Linux64(u64),
    Pvh(u32),
}

/// What a kernel file asks for, all of it checked against the file and the RAM.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub segments: Vec<KernelSegment>,
    /// What the kernel uses before it knows its memory map.
    pub footprint: Range<u64>,
    pub entry: Entry,
    /// A bzImage's setup header.
    pub setup_header: Option<setup_header>,
    /// First address that an initrd must not reach, unless it is above 4 GiB.
    pub initrd_end: u64,
    /// Whether an initrd may be above 4 GiB.
    pub initrd_reach: InitrdReach,
    /// The longest command line, in bytes without its NUL.
    pub cmdline_limit: usize,
}

/// Where a kernel can read an initrd.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum InitrdReach {
    Below4Gib,
    Anywhere,
}
