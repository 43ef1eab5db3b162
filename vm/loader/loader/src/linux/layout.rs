//! The layout of memory below 1 MiB, and the memory map that the guest is given.
//!
//! The map depends on the size of RAM alone: a kernel that resumes from hibernation refuses any map but the one
//! it hibernated with, byte for byte.

use super::LoadError;
use crate::PAGE;
use guest_memory::MemoryLayout;
use linux_loader::bootparam::E820_MAX_ENTRIES_ZEROPAGE;
use std::ops::Range;

/// The global descriptor table.
pub const GDT: u64 = 0x1000;
/// The boot parameters ("zero page").
pub const BOOT_PARAMS: u64 = 0x2000;
/// The command line: one page, with its NUL.
pub const COMMAND_LINE: u64 = 0x3000;
/// The page tables: six pages.
pub const PAGE_TABLES: u64 = 0x4000;
/// The end of a small stack, for code that pushes before it sets up its own.
pub const STACK_TOP: u64 = 0x1_8000;
/// The PVH start info with its lists: one page.
pub const START_INFO: u64 = 0x1_8000;
/// The ACPI tables besides the RSDP.
pub const ACPI_TABLES: u64 = 0x1_9000;
/// First address after the ACPI tables' region.
pub const ACPI_TABLES_END: u64 = ACPI_TABLES + acpi_spec::REGION_SIZE;
/// The end of usable RAM below the VGA window. The kilobyte that follows is where a BIOS keeps its extended
/// data area; kernels keep away from it whatever the map says.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// The RSDP, where a kernel that is not told its address finds it by searching.
pub const RSDP: u64 = 0xe_0000;
/// The lowest address at which a kernel may be loaded.
pub const HIGH_RAM: u64 = 0x10_0000;

/// The version of the map that [`memory_map`] makes: it changes whenever the map does.
pub const MEMORY_MAP_VERSION: u32 = 1;

const _: () = assert!(ACPI_TABLES_END < LOW_RAM_END);

/// What a range of the memory map holds. The values are those of E820 and of PVH's memory map.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// Usable RAM.
    Ram = 1,
    /// Not usable.
    Reserved = 2,
    /// RAM that holds ACPI tables.
    Acpi = 3,
}

/// A range of the memory map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapEntry {
    /// The addresses.
    pub range: Range<u64>,
    /// What they hold.
    pub kind: MemoryKind,
}

/// The memory map given to a kernel on a machine with this layout.
pub fn memory_map(layout: &MemoryLayout) -> Result<Vec<MapEntry>, LoadError> {
    let low = low_ram(layout)?;
    let entry = |range, kind| MapEntry { range, kind };
    let mut map = vec![
        entry(0..ACPI_TABLES, MemoryKind::Ram),
        entry(ACPI_TABLES..ACPI_TABLES_END, MemoryKind::Acpi),
        entry(ACPI_TABLES_END..LOW_RAM_END, MemoryKind::Ram),
        entry(LOW_RAM_END..0xa_0000, MemoryKind::Reserved),
        entry(RSDP..HIGH_RAM, MemoryKind::Reserved),
        entry(HIGH_RAM..low.end, MemoryKind::Ram),
    ];
    for ram in layout.ram().iter().skip(1).filter(|r| !r.is_empty()) {
        map.push(entry(ram.start..ram.end, MemoryKind::Ram));
    }
    if map.len() > E820_MAX_ENTRIES_ZEROPAGE {
        return Err(LoadError::TooManyRamRanges { count: map.len() });
    }
    Ok(map)
}

/// The RAM from address 0, which holds the kernel and everything it is handed.
pub(super) fn low_ram(layout: &MemoryLayout) -> Result<Range<u64>, LoadError> {
    match layout.ram().first() {
        Some(first) if first.start == 0 && first.end > HIGH_RAM && first.end <= 1 << 32 => {
            Ok(first.start..first.end)
        }
        _ => Err(LoadError::NoLowRam),
    }
}

/// `address` rounded up to a page; `None` past the last page.
pub(super) fn page_up(address: u64) -> Option<u64> {
    address.checked_next_multiple_of(PAGE)
}

/// `address` rounded down to a page.
pub(super) fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(size: u64) -> Vec<MapEntry> {
        let layout = MemoryLayout::new(size, MemoryLayout::DEFAULT_LOW_MMIO_START, 46).unwrap();
        memory_map(&layout).unwrap()
    }

    #[test]
    fn the_map_ascends_and_covers_all_ram_but_the_vga_window() {
        for size in [32 << 20, 3 << 30, 65 << 30] {
            let map = map(size);
            assert!(map.iter().all(|e| e.range.start < e.range.end));
            assert!(map.windows(2).all(|w| w[0].range.end <= w[1].range.start));
            let covered: u64 = map.iter().map(|e| e.range.end - e.range.start).sum();
            assert_eq!(covered, size - 0x4_0000);
        }
    }

    #[test]
    fn the_map_of_a_version_stays_as_it_is() {
        // A change here stops hibernated guests from resuming: it needs a new MEMORY_MAP_VERSION.
        let expected = [
            (0x0, 0x1_9000, 1),
            (0x1_9000, 0x5_9000, 3),
            (0x5_9000, 0x9_fc00, 1),
            (0x9_fc00, 0xa_0000, 2),
            (0xe_0000, 0x10_0000, 2),
            (0x10_0000, 0xc000_0000, 1),
            (0x1_0000_0000, 0x1_4000_0000, 1),
        ];
        let found: Vec<_> = map(4 << 30)
            .into_iter()
            .map(|e| (e.range.start, e.range.end, e.kind as u32))
            .collect();
        assert_eq!(found, expected);
        assert_eq!((MEMORY_MAP_VERSION, acpi_spec::REGION_VERSION), (1, 1));
    }
}
