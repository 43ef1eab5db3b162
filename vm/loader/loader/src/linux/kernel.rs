//! What is known of a kernel once its file has been read.

use super::LoadError;
use crate::ImageFile;
use linux_loader::bootparam::setup_header;
use std::ops::Range;

/// The protocol by which a kernel is to be entered.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub enum EntryProtocol {
    /// The 64-bit protocol, unless the file can only be entered by PVH: it has a PVH entry, and its ELF
    /// entry is the same or is not in the file's segments.
    #[default]
    Auto,
    /// The kernel's 64-bit boot protocol.
    Linux64,
    /// PVH: 32-bit protected mode, at the entry in the ELF file's `XEN_ELFNOTE_PHYS32_ENTRY` note.
    Pvh,
}

/// A part of a kernel file and its address in guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelSegment {
    pub file_offset: u64,
    pub file_len: u64,
    pub gpa: u64,
    /// At least `file_len`; the rest is zero.
    pub mem_len: u64,
}

impl KernelSegment {
    pub(super) fn range(&self) -> Range<u64> {
        self.gpa..self.gpa + self.mem_len
    }
}

/// The address at which a kernel is entered, by protocol.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Linux64(u64),
    Pvh(u32),
}

/// What a kernel file asks for, checked against the file and the RAM.
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

/// Refuses a part of a kernel file that goes past the file's end.
pub(super) fn check_in_file(
    file: &ImageFile,
    part: &'static str,
    offset: u64,
    len: u64,
) -> Result<(), LoadError> {
    match offset.checked_add(len) {
        Some(end) if end <= file.len() => Ok(()),
        end => Err(LoadError::Truncated {
            path: file.path().into(),
            part,
            end: end.unwrap_or(u64::MAX),
            len: file.len(),
        }),
    }
}
