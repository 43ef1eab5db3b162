//! The guest-physical address space.

use guest_memory::GuestRegion;
use guest_memory::MemoryRange;
use std::collections::BTreeMap;
use virt::Error;
use virt::MappingAccess;
use vm_memory::Bytes as _;
use vm_memory::GuestMemoryRegion as _;
use vm_memory::MemoryRegionAddress;

const PAGE: u64 = 4096;

/// What is mapped, by the address of the first byte.
#[derive(Default)]
pub(crate) struct Mappings(BTreeMap<u64, Mapping>);

struct Mapping {
    end: u64,
    access: MappingAccess,
    region: GuestRegion,
}

pub(crate) fn range_of(region: &GuestRegion) -> MemoryRange {
    let start = region.start_addr().0;
    MemoryRange {
        start,
        end: start.saturating_add(region.len()),
    }
}

impl Mappings {
    pub(crate) fn map(&mut self, region: GuestRegion, access: MappingAccess) -> Result<(), Error> {
        let range = range_of(&region);
        if range.is_empty() || !range.start.is_multiple_of(PAGE) || !range.end.is_multiple_of(PAGE)
        {
            let text = format!("the memory at {range} is not whole pages");
            return Err(Error::InvalidRequest(text));
        }
        if let Some(mapping) = self.0.get_mut(&range.start)
            && mapping.end == range.end
            && mapping.region.as_ptr() == region.as_ptr()
        {
            mapping.access = access;
            return Ok(());
        }
        if let Some((start, other)) = self.0.range(..range.end).next_back()
            && other.end > range.start
        {
            return Err(Error::InvalidRequest(format!(
                "memory at {range} overlaps the mapping at {start:#x}"
            )));
        }
        let mapping = Mapping {
            end: range.end,
            access,
            region,
        };
        self.0.insert(range.start, mapping);
        Ok(())
    }

    pub(crate) fn unmap(&mut self, range: MemoryRange) -> Result<(), Error> {
        let mapping = self.0.get(&range.start);
        if mapping.is_none_or(|mapping| mapping.end != range.end) {
            let text = format!("no memory is mapped at exactly {range}");
            return Err(Error::InvalidRequest(text));
        }
        self.0.remove(&range.start);
        Ok(())
    }

    fn containing(&mut self, gpa: u64, size: usize) -> Option<(u64, &mut Mapping)> {
        let (&start, mapping) = self.0.range_mut(..=gpa).next_back()?;
        let end = gpa.checked_add(size as u64)?;
        (end <= mapping.end).then_some((gpa - start, mapping))
    }

    /// Reads mapped memory; `false` where there is none.
    pub(crate) fn read(&mut self, gpa: u64, data: &mut [u8]) -> bool {
        let found = self.containing(gpa, data.len());
        found.is_some_and(|(offset, mapping)| {
            let read = mapping.region.read_slice(data, MemoryRegionAddress(offset));
            read.is_ok()
        })
    }

    /// Writes mapped memory; `false` where there is none that the guest may write.
    pub(crate) fn write(&mut self, gpa: u64, data: &[u8]) -> bool {
        let Some((offset, mapping)) = self.containing(gpa, data.len()) else {
            return false;
        };
        if mapping.access == MappingAccess::ReadOnly || data.is_empty() {
            return false;
        }
        let written = mapping
            .region
            .write_slice(data, MemoryRegionAddress(offset));
        written.is_ok()
    }

    pub(crate) fn list(&self) -> Vec<(MemoryRange, MappingAccess)> {
        let mappings = self.0.iter().map(|(&start, mapping)| {
            let end = mapping.end;
            (MemoryRange { start, end }, mapping.access)
        });
        mappings.collect()
    }
}
