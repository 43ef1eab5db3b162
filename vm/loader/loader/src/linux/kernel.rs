//! What is known of a kernel once its file has been read.

use super::KernelError;
use crate::ImageFile;
use linux_loader::bootparam::setup_header;
use std::ops::Range;
use vm_memory::ByteValued;

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
    /// Where an initrd may be.
    pub initrd_reach: InitrdReach,
    /// The longest command line, in bytes without its NUL.
    pub cmdline_limit: usize,
}

/// Where a kernel can read an initrd.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum InitrdReach {
    /// Below this address.
    Below(u64),
    Anywhere,
}

/// The ELF header of type `T` at `offset` of `bytes`, if all of it is there.
pub(super) fn header_at<T: ByteValued + Default>(bytes: &[u8], offset: usize) -> Option<T> {
    let mut header = T::default();
    let bytes = bytes.get(offset..offset.checked_add(size_of::<T>())?)?;
    header.as_mut_slice().copy_from_slice(bytes);
    Some(header)
}

/// Refuses a part of a kernel file that goes past the file's end.
pub(super) fn check_in_file(
    file: &ImageFile,
    part: &'static str,
    offset: u64,
    len: u64,
) -> Result<(), KernelError> {
    match offset.checked_add(len) {
        Some(end) if end <= file.len() => Ok(()),
        end => Err(KernelError::Truncated {
            part,
            end: end.unwrap_or(u64::MAX),
            len: file.len(),
        }),
    }
}
