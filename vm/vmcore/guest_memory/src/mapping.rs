//! Host mappings for guest memory.
#![allow(unsafe_code, reason = "mmap, munmap and madvise take addresses")]

use crate::HUGE_PAGE;
use crate::MemoryError;
use crate::PageKind;
use libc::MAP_ANONYMOUS;
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

/// As `map`, but aligned to the huge page size if possible. Guest RAM starts at multiples of it too, and the
/// processor uses a huge page only if it is aligned in both address spaces.
fn map_aligned(file: Option<FileOffset>, size: u64, flags: i32) -> MapResult {
    // The kernel maps at the highest gap that fits. A larger reservation leaves a gap of exactly this size at an
    // aligned address. If another thread maps there first, the mapping works without being aligned.
    let reserved = Reservation::new(size as usize + HUGE_PAGE as usize);
    if let Some(reserved) = &reserved {
        reserved.open(HUGE_PAGE as usize, size as usize);
    }
    map(file, size, flags)
}

/// A range of reserved addresses, with a gap in it once [`Reservation::open`] was called.
struct Reservation {
    start: *mut c_void,
    size: usize,
    opened: Cell<Range<usize>>,
}

impl Reservation {
    fn new(size: usize) -> Option<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the address, and the mapping cannot be accessed.
        let start = unsafe { mmap_anonymous(null_mut(), size, ProtFlags::empty(), flags) }.ok()?;
        Some(Self {
            start,
            size,
            opened: Cell::new(0..0),
        })
    }

    /// Unmaps `size` bytes at the first multiple of `alignment`.
    fn open(&self, alignment: usize, size: usize) {
        let offset = self.start.addr().next_multiple_of(alignment) - self.start.addr();
        self.unmap(offset..offset + size);
        self.opened.set(offset..offset + size);
    }

    fn unmap(&self, range: Range<usize>) {
        if range.is_empty() || range.end > self.size {
            return;
        }
        // SAFETY: the range is in the reservation, has not been unmapped yet, and nothing refers to it.
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
    // SAFETY: the range is the whole mapping that `region` owns, and neither advice used here changes its content.
    Ok(unsafe { rustix::mm::madvise(region.as_ptr().cast(), region.size(), advice) }?)
}

pub(crate) fn anonymous(size: u64) -> Result<MmapRegion, MemoryError> {
    map_aligned(None, size, MAP_ANONYMOUS | MAP_PRIVATE | MAP_NORESERVE)
        .map_err(|source| MemoryError::Map { size, source })
}

/// Says whether the host may use transparent huge pages.
pub(crate) fn advise_pages(region: &MmapRegion, pages: PageKind) {
    let advice = match pages {
        PageKind::Transparent => Advice::LinuxHugepage,
        PageKind::Small => Advice::LinuxNoHugepage,
        PageKind::Huge2M | PageKind::Huge1G => return,
    };
    if let Err(error) = advise(region, advice) {
        tracing::debug!(%error, "the host has no transparent huge pages");
    }
}

/// Without `MAP_NORESERVE`, a pool that is too small is an error here, instead of a SIGBUS when the guest runs.
pub(crate) fn huge_pages(size: u64, page: u64) -> Result<MmapRegion, MemoryError> {
    let flags = MAP_ANONYMOUS | MAP_PRIVATE | MAP_HUGETLB | page_flag(page);
    map(None, size, flags).map_err(|source| MemoryError::HugePages { size, page, source })
}

/// How mmap and memfd_create are told a page size: the binary logarithm, shifted.
pub(crate) fn page_flag(page: u64) -> i32 {
    page.trailing_zeros().cast_signed() << libc::MAP_HUGE_SHIFT
}

pub(crate) fn shared(file: FileOffset, size: u64) -> Result<MmapRegion, MemoryError> {
    map(Some(file), size, MAP_SHARED | MAP_NORESERVE)
        .map_err(|source| MemoryError::Map { size, source })
}

/// As [`shared`], of a memory file without a name.
pub(crate) fn shared_memory(
    file: FileOffset,
    size: u64,
    pages: PageKind,
) -> Result<MmapRegion, MemoryError> {
    match pages.pool_size() {
        None => map_aligned(Some(file), size, MAP_SHARED | MAP_NORESERVE)
            .map_err(|source| MemoryError::Map { size, source }),
        Some(page) => map(Some(file), size, MAP_SHARED).map_err(|source| MemoryError::HugePages {
            size,
            page,
            source,
        }),
    }
}

/// A copy of a file's content that is made page by page as they are written.
pub(crate) fn private(file: FileOffset, size: u64) -> Result<MmapRegion, MemoryError> {
    map_aligned(Some(file), size, MAP_PRIVATE | MAP_NORESERVE)
        .map_err(|source| MemoryError::Map { size, source })
}

/// Allocates all pages of the region.
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
    fn anonymous_memory_is_aligned_to_huge_pages() {
        // Threads of other tests may take the gap, so try several times.
        let sizes = [64 << 20, (64 << 20) + 0x1000, 6 << 20, HUGE_PAGE];
        let aligned = |size| (0..8).any(|_| misalignment(&anonymous(size).unwrap()) == 0);
        assert!(sizes.into_iter().all(aligned));
        assert!(anonymous(0x1000).is_ok());
    }
}
