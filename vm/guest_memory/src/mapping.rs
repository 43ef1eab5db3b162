//! The mappings behind guest RAM.
#![allow(
    unsafe_code,
    reason = "advice to the kernel on a mapping takes its address"
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
use std::io;
use vm_memory::FileOffset;
use vm_memory::MmapRegion;

fn map(
    file: Option<FileOffset>,
    size: u64,
    flags: i32,
) -> Result<MmapRegion, vm_memory::mmap::MmapRegionError> {
    MmapRegion::build(file, size as usize, PROT_READ | PROT_WRITE, flags)
}

fn advise(region: &MmapRegion, advice: Advice) -> io::Result<()> {
    // SAFETY: the range is a whole mapping that `region` owns, and neither advice used here changes what the
    // memory holds.
    Ok(unsafe { rustix::mm::madvise(region.as_ptr().cast(), region.size(), advice) }?)
}

pub(crate) fn anonymous(size: u64) -> Result<MmapRegion, MemoryError> {
    let region = map(None, size, MAP_ANONYMOUS | MAP_PRIVATE | MAP_NORESERVE)
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
