//! KVM's memory slots: the guest-physical memory map.

use crate::ioctl;
use guest_memory::GuestRegion;
use guest_memory::MemoryRange;
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use virt::Error;
use virt::MappingAccess;
use vm_memory::Bytes as _;
use vm_memory::GuestMemoryRegion as _;
use vm_memory::MemoryRegionAddress;

const PAGE: u64 = 4096;

/// The slots of one VM.
pub(crate) struct Slots {
    readonly_memory: bool,
    table: Mutex<Table>,
}

struct Table {
    /// By the address of the first byte.
    slots: BTreeMap<u64, Slot>,
    max: u32,
}

struct Slot {
    id: u32,
    end: u64,
    access: MappingAccess,
    /// Keeps the host memory mapped while the slot exists.
    region: GuestRegion,
}

impl Table {
    fn overlapping(&self, start: u64, end: u64) -> Option<MemoryRange> {
        let (&found, slot) = self.slots.range(..end).next_back()?;
        (slot.end > start).then_some(MemoryRange {
            start: found,
            end: slot.end,
        })
    }

    fn free_id(&self) -> Option<u32> {
        (0..self.max).find(|id| self.slots.values().all(|slot| slot.id != *id))
    }
}

fn flags(access: MappingAccess) -> u32 {
    match access {
        MappingAccess::ReadWrite => 0,
        MappingAccess::ReadOnly => KVM_MEM_READONLY,
    }
}

fn range_of(region: &GuestRegion) -> Result<MemoryRange, Error> {
    let start = region.start_addr().0;
    let range = start
        .checked_add(region.len())
        .map(|end| MemoryRange { start, end });
    match range {
        Some(range)
            if !range.is_empty()
                && start.is_multiple_of(PAGE)
                && range.end.is_multiple_of(PAGE) =>
        {
            Ok(range)
        }
        _ => Err(Error::InvalidRequest(format!(
            "{} bytes at {start:#x} are not whole pages",
            region.len()
        ))),
    }
}

impl Slots {
    pub(crate) fn new(max: u32, readonly_memory: bool) -> Self {
        Self {
            readonly_memory,
            table: Mutex::new(Table {
                slots: BTreeMap::new(),
                max,
            }),
        }
    }

    /// See [`virt::Partition::map`].
    pub(crate) fn map(
        &self,
        vm: &VmFd,
        region: GuestRegion,
        access: MappingAccess,
    ) -> Result<(), Error> {
        if access == MappingAccess::ReadOnly && !self.readonly_memory {
            return Err(Error::MissingCapability {
                what: "KVM_CAP_READONLY_MEM",
            });
        }
        let range = range_of(&region)?;
        let mut table = self.table.lock();
        if let Some(slot) = table.slots.get_mut(&range.start)
            && slot.end == range.end
            && slot.region.as_ptr() == region.as_ptr()
        {
            return change(vm, slot, range, access);
        }
        if let Some(other) = table.overlapping(range.start, range.end) {
            return Err(Error::InvalidRequest(format!(
                "memory at {range} overlaps the mapping at {other}"
            )));
        }
        let id = table
            .free_id()
            .ok_or_else(|| Error::InvalidRequest(format!("no memory slot is left for {range}")))?;
        ioctl::set_slot(vm, id, flags(access), &region)
            .map_err(|e| Error::call(format!("map memory at {range}"), e))?;
        table.slots.insert(
            range.start,
            Slot {
                id,
                end: range.end,
                access,
                region,
            },
        );
        Ok(())
    }

    /// See [`virt::Partition::unmap`].
    pub(crate) fn unmap(&self, vm: &VmFd, range: MemoryRange) -> Result<(), Error> {
        let mut table = self.table.lock();
        let Some(slot) = table.slots.get(&range.start).filter(|s| s.end == range.end) else {
            let text = format!("no memory is mapped at exactly {range}");
            return Err(Error::InvalidRequest(text));
        };
        let id = slot.id;
        ioctl::clear_slot(vm, id)
            .map_err(|e| Error::call(format!("unmap memory at {range}"), e))?;
        table.slots.remove(&range.start);
        Ok(())
    }

    /// Reads up to `bytes.len()` bytes from one mapping, and returns how many.
    pub(crate) fn read(&self, gpa: u64, bytes: &mut [u8]) -> usize {
        let table = self.table.lock();
        let Some((&start, slot)) = table.slots.range(..=gpa).next_back() else {
            return 0;
        };
        if gpa >= slot.end {
            return 0;
        }
        slot.region
            .read(bytes, MemoryRegionAddress(gpa - start))
            .unwrap_or(0)
    }

    pub(crate) fn inspect(&self) -> serde_json::Value {
        let table = self.table.lock();
        table
            .slots
            .iter()
            .map(|(start, slot)| {
                serde_json::json!({
                    "slot": slot.id,
                    "start": format!("{start:#x}"),
                    "end": format!("{:#x}", slot.end),
                    "access": match slot.access {
                        MappingAccess::ReadWrite => "read-write",
                        MappingAccess::ReadOnly => "read-only",
                    },
                })
            })
            .collect()
    }
}

/// Changes the access of a mapping. KVM cannot change whether a slot is read-only, so it is removed and set again; if
/// that fails, it is set as it was.
fn change(
    vm: &VmFd,
    slot: &mut Slot,
    range: MemoryRange,
    access: MappingAccess,
) -> Result<(), Error> {
    if slot.access == access {
        return Ok(());
    }
    let failed = |e| Error::call(format!("change the access of the memory at {range}"), e);
    ioctl::clear_slot(vm, slot.id).map_err(failed)?;
    if let Err(e) = ioctl::set_slot(vm, slot.id, flags(access), &slot.region) {
        if let Err(error) = ioctl::set_slot(vm, slot.id, flags(slot.access), &slot.region) {
            tracing::error!(%range, %error, "memory is no longer mapped");
        }
        return Err(failed(e));
    }
    slot.access = access;
    Ok(())
}
