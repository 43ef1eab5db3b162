//! Where the initrd goes.

use super::LoadError;
use super::kernel::InitrdReach;
use super::kernel::Kernel;
use super::layout::HIGH_RAM;
use super::layout::page_down;
use crate::ImageFile;
use guest_memory::MemoryLayout;
use std::ops::Range;

/// Finds the highest free range below 4 GiB for the initrd, or, if there is none and the kernel
/// can read it, the highest above.
pub(super) fn place(
    file: &ImageFile,
    kernel: &Kernel,
    layout: &MemoryLayout,
    low_ram: &Range<u64>,
) -> Result<Range<u64>, LoadError> {
    let len = file.len();
    if file.is_empty() {
        return Err(LoadError::InitrdEmpty {
            path: file.path().into(),
        });
    }
    let low_end = match kernel.initrd_reach {
        InitrdReach::Below(end) => low_ram.end.min(end),
        InitrdReach::Anywhere => low_ram.end,
    };
    let footprint = &kernel.footprint;
    let low = [
        footprint.end.max(HIGH_RAM)..low_end,
        HIGH_RAM..page_down(footprint.start).min(low_end),
    ];
    let high = layout
        .ram()
        .iter()
        .skip(1)
        .rev()
        .filter(|_| kernel.initrd_reach == InitrdReach::Anywhere)
        .map(|ram| ram.start..ram.end);
    low.into_iter()
        .chain(high)
        .find_map(|range| top_of(&range, len))
        .ok_or_else(|| LoadError::InitrdTooLarge {
            path: file.path().into(),
            size: len,
            end: low_end,
            kernel_start: footprint.start,
            kernel_end: footprint.end,
        })
}

/// The highest page-aligned `len` bytes in `range`.
fn top_of(range: &Range<u64>, len: u64) -> Option<Range<u64>> {
    let start = page_down(range.end.checked_sub(len)?);
    (start >= range.start).then(|| start..start + len)
}

#[cfg(test)]
#[path = "initrd_test.rs"]
mod tests;
