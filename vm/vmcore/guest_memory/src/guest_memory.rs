//! Guest RAM and device memory.

use crate::MemoryBacking;
use crate::MemoryError;
use crate::MemoryLayout;
use crate::MemoryRange;
use crate::MemorySource;
use crate::content;
use crate::file;
use crate::file::MemoryFile;
use crate::mapping;
use std::fs::File;
use std::sync::Arc;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestRegionMmap;

/// Host memory with a fixed guest-physical address.
pub type GuestRegion = Arc<GuestRegionMmap>;

/// Guest RAM.
#[derive(Debug, Clone)]
pub struct GuestMemory {
    layout: MemoryLayout,
    regions: Vec<GuestRegion>,
    map: GuestMemoryMmap,
}

/// Zeroed anonymous memory of `size` bytes at `gpa`, for a device with memory of its own (a ROM, a flash chip). It
/// is not RAM: no [`GuestMemory`] contains it.
pub fn device_region(gpa: u64, size: u64) -> Result<GuestRegion, MemoryError> {
    let fits = size > 0 && gpa.checked_add(size).is_some() && usize::try_from(size).is_ok();
    let region = fits
        .then(|| mapping::anonymous(size))
        .transpose()?
        .and_then(|region| GuestRegionMmap::new(region, GuestAddress(gpa)));
    region
        .map(Arc::new)
        .ok_or(MemoryError::DeviceRegion { gpa, size })
}

impl GuestMemory {
    /// Creates guest RAM from `backing`. A failure leaves nothing behind.
    pub fn new(layout: MemoryLayout, backing: &MemoryBacking) -> Result<Self, MemoryError> {
        backing.pages.check(&layout)?;
        let mut named = None;
        let mut unnamed = None;
        let mut saved = None;
        match &backing.source {
            MemorySource::Anonymous => {}
            MemorySource::File(path) => named = Some(MemoryFile::open(path, layout.ram_size())?),
            MemorySource::Shared => {
                unnamed = Some(file::unnamed(layout.ram_size(), backing.pages)?);
            }
            MemorySource::Saved(path) => saved = Some(file::saved(path, layout.ram_size())?),
        }
        let mut regions = Vec::new();
        let mut offset = 0;
        for range in layout.ram() {
            let size = range.len();
            let at = |file: &Arc<File>| FileOffset::from_arc(file.clone(), offset);
            let region = if let Some(file) = &named {
                mapping::shared(file.at(offset), size)?
            } else if let Some(file) = &unnamed {
                mapping::shared_memory(at(file), size, backing.pages)?
            } else if let Some(file) = &saved {
                mapping::private(at(file), size)?
            } else if let Some(page) = backing.pages.pool_size() {
                mapping::huge_pages(size, page)?
            } else {
                mapping::anonymous(size)?
            };
            if named.is_none() {
                mapping::advise_pages(&region, backing.pages);
            }
            if backing.prealloc {
                mapping::populate(&region)
                    .map_err(|source| MemoryError::Preallocate { size, source })?;
            }
            offset += size;
            if let Some(region) = GuestRegionMmap::new(region, GuestAddress(range.start)) {
                regions.push(Arc::new(region));
            }
        }
        if let Some(file) = named {
            file.keep();
        }
        // The layout's ranges are ascending and disjoint, so this does not fail.
        let map = GuestMemoryMmap::from_arc_regions(regions.clone()).unwrap_or_default();
        Ok(Self {
            layout,
            regions,
            map,
        })
    }

    /// Anonymous memory, whose pages are allocated when the guest first accesses them.
    pub fn anonymous(layout: MemoryLayout) -> Result<Self, MemoryError> {
        Self::new(layout, &MemoryBacking::default())
    }

    /// The address ranges of RAM.
    pub fn layout(&self) -> &MemoryLayout {
        &self.layout
    }

    /// The regions, ascending.
    pub fn regions(&self) -> &[GuestRegion] {
        &self.regions
    }

    /// The ranges that may have content: outside of them every byte is zero. Ascending and disjoint, in whole pages.
    ///
    /// Pages that the guest never touched are not read to find this out. Nothing may write the memory meanwhile.
    pub fn content(&self) -> Vec<MemoryRange> {
        let regions = self.regions.iter();
        regions.flat_map(|region| content::ranges(region)).collect()
    }

    /// Access to the content.
    pub fn map(&self) -> &GuestMemoryMmap {
        &self.map
    }
}

#[cfg(test)]
#[path = "guest_memory_test.rs"]
mod tests;
