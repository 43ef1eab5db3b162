//! The host memory behind guest RAM.

use crate::MemoryLayout;
use std::sync::Arc;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestRegionMmap;
use vm_memory::MmapRegion;

/// Host memory that appears at a fixed place in the guest-physical address space.
pub type GuestRegion = Arc<GuestRegionMmap>;

/// Why guest RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has no such memory to give.
    #[error("failed to map {size} bytes of guest memory")]
    Map {
        /// Bytes asked for.
        size: u64,
        /// What the host said.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
}

/// Guest RAM.
#[derive(Debug, Clone)]
pub struct GuestMemory {
    layout: MemoryLayout,
    regions: Vec<GuestRegion>,
    map: GuestMemoryMmap,
}

impl GuestMemory {
    /// Anonymous memory, taken from the host page by page as the guest touches it.
    pub fn anonymous(layout: MemoryLayout) -> Result<Self, MemoryError> {
        let mut regions = Vec::new();
        for range in layout.ram() {
            let size = range.len();
            let region = MmapRegion::new(size as usize)
                .map_err(|source| MemoryError::Map { size, source })?;
            if let Some(region) = GuestRegionMmap::new(region, GuestAddress(range.start)) {
                regions.push(Arc::new(region));
            }
        }
        let map = GuestMemoryMmap::from_arc_regions(regions.clone()).unwrap_or_default();
        Ok(Self {
            layout,
            regions,
            map,
        })
    }

    /// Where RAM lies.
    pub fn layout(&self) -> &MemoryLayout {
        &self.layout
    }

    /// The regions, ascending.
    pub fn regions(&self) -> &[GuestRegion] {
        &self.regions
    }

    /// Access to the bytes.
    pub fn map(&self) -> &GuestMemoryMmap {
        &self.map
    }
}
