//! The mappings behind guest RAM.
#![allow(
    unsafe_code,
    reason = "the kernel is told of mappings by their addresses"
)]

use crate::HUGE_PAGE;
use crate::MemoryError;
use crate::MemoryRange;
use libc::MAP_ANONYMOUS;
use libc::MAP_HUGE_2MB;
use libc::MAP_HUGETLB;
use libc::MAP_NORESERVE;
use libc::MAP_PRIVATE;
use libc::MAP_SHARED;
use libc::PROT_READ;
use libc::PROT_WRITE;
use rustix::mm::Advice;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;
use rustix::mm::mmap_anonymous;
use rustix::mm::munmap;
use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::ptr::null_mut;
use vm_memory::FileOffset;
use vm_memory::MmapRegion;

type MapResult = Result<MmapRegion, vm_memory::mmap::MmapRegionError>;

fn map(file: Option<FileOffset>, size: u64, flags: i32) -> MapResult {
    MmapRegion::build(file, size as usize, PROT_READ | PROT_WRITE, flags)
}

/// As `map`, at a multiple of the huge page size if the kernel has a place. Guest RAM begins at such multiples too,
/// and a page is a huge one to the guest only if it is in both address spaces.
fn map_aligned(size: u64, flags: i32) -> MapResult {
    // The kernel takes the highest gap that fits. One that fits exactly, at such an address, is left in a larger
    // reservation. If another mapping gets there first this one is as good as any.
    let reserved = Reservation::new(size as usize + HUGE_PAGE as usize);
    if let Some(reserved) = &reserved {
        reserved.open(HUGE_PAGE as usize, size as usize);
    }
    map(None, size, flags)
}

/// Addresses that nothing is mapped at, except where it has been opened.
struct Reservation {
    start: *mut c_void,
    size: usize,
    opened: Cell<Range<usize>>,
}

impl Reservation {
    fn new(size: usize) -> Option<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the address, and nothing can be accessed there.
        let start = unsafe { mmap_anonymous(null_mut(), size, ProtFlags::empty(), flags) }.ok()?;
        Some(Self {
            start,
            size,
            opened: Cell::new(0..0),
        })
    }

    /// Gives up `size` bytes at the first multiple of `alignment`.
    fn open(&self, alignment: usize, size: usize) {
        let offset = self.start.addr().next_multiple_of(alignment) - self.start.addr();
        self.unmap(offset..offset + size);
        self.opened.set(offset..offset + size);
    }

    fn unmap(&self, range: Range<usize>) {
        if range.is_empty() || range.end > self.size {
            return;
        }
        // SAFETY: the range is in the reservation, has not been given up yet, and nothing refers to it.
        let _ = unsafe { munmap(self.start.byte_add(range.start), range.len()) };
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let opened = self.opened.take();
        self.unmap(0..opened.start);
        self.unmap(opened.end..self.size);
    }
}

#[cfg(test)]
fn misalignment(region: &MmapRegion) -> u64 {
    region.as_ptr().addr() as u64 % HUGE_PAGE
}

fn advise(region: &MmapRegion, advice: Advice) -> io::Result<()> {
    // SAFETY: the range is a whole mapping that `region` owns, and neither advice used here changes what the
    // memory holds.
    Ok(unsafe { rustix::mm::madvise(region.as_ptr().cast(), region.size(), advice) }?)
}

pub(crate) fn anonymous(size: u64) -> Result<MmapRegion, MemoryError> {
    let region = map_aligned(size, MAP_ANONYMOUS | MAP_PRIVATE | MAP_NORESERVE)
        .map_err(|source| MemoryError::Map { size, source })?;
    if let Err(error) = advise(&region, Advice::LinuxHugepage) {
        tracing::debug!(%error, "the host has no transparent huge pages");
    }
    Ok(region)
}

/// Without `MAP_NORESERVE`: a pool that is too small is an error here, and not a signal when the guest runs.
pub(crate) fn huge_pages(range: &MemoryRange) -> Result<MmapRegion, MemoryError> {
    let (gpa, size) = (range.start, range.len());
    if !size.is_multiple_of(HUGE_PAGE) || !gpa.is_multiple_of(HUGE_PAGE) {
        return Err(MemoryError::NotHugePages { gpa, size });
    }
    map(
        None,
        size,
        MAP_ANONYMOUS | MAP_PRIVATE | MAP_HUGETLB | MAP_HUGE_2MB,
    )
    .map_err(|source| MemoryError::HugePages { size, source })
}

pub(crate) fn shared(file: FileOffset, size: u64) -> Result<MmapRegion, MemoryError> {
    map(Some(file), size, MAP_SHARED | MAP_NORESERVE)
        .map_err(|source| MemoryError::Map { size, source })
}

/// Takes all of the memory from the host now.
pub(crate) fn populate(region: &MmapRegion) -> io::Result<()> {
    loop {
        match advise(region, Advice::LinuxPopulateWrite) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_suits_huge_pages() {
        // Other tests' threads may get in between once.
        let sizes = [64 << 20, (64 << 20) + 0x1000, 6 << 20, HUGE_PAGE];
        let aligned = |size| (0..8).any(|_| misalignment(&anonymous(size).unwrap()) == 0);
        assert!(sizes.into_iter().all(aligned));
        assert!(anonymous(0x1000).is_ok());
    }
}
