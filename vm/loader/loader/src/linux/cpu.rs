//! The boot processor's registers and segments for each protocol.

use super::kernel::Entry;
use super::layout;
use super::page_tables;
use crate::BootState;
use crate::CpuMode;
use crate::DescriptorTable;
use crate::Segment;

const CR0_PE: u64 = 1 << 0;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The flag that always reads 1; interrupts are off.
const RFLAGS: u64 = 1 << 1;

/// Accessed, readable, present code at privilege level 0, its limit in pages.
const CODE: u16 = 0x809b;
const LONG: u16 = 1 << 13;
const BITS_32: u16 = 1 << 14;

/// The code segment for PVH.
const CODE_32: Segment = Segment {
    selector: 0x08,
    base: 0,
    limit: u32::MAX,
    attributes: CODE | BITS_32,
};

/// The code segment at the selector that the 64-bit protocol names `__BOOT_CS`.
const CODE_64: Segment = Segment {
    selector: 0x10,
    base: 0,
    limit: u32::MAX,
    attributes: CODE | LONG,
};

/// The data segment at `__BOOT_DS`.
const DATA: Segment = Segment {
    selector: 0x18,
    base: 0,
    limit: u32::MAX,
    attributes: 0xc093,
};

/// A busy TSS: processors refuse to run a guest without one.
const TASK: Segment = Segment {
    selector: 0x20,
    base: 0,
    limit: 0x67,
    attributes: 0x008b,
};

/// Selectors 0 to 0x28; the task segment takes two places in 64-bit mode.
const GDT_ENTRIES: usize = 6;

/// The bytes of the descriptor table for [`layout::GDT`].
pub(super) fn gdt() -> Vec<u8> {
    let mut entries = [0u64; GDT_ENTRIES];
    for segment in [CODE_32, CODE_64, DATA, TASK] {
        entries[usize::from(segment.selector / 8)] = segment.descriptor();
    }
    entries.iter().flat_map(|e| e.to_le_bytes()).collect()
}

/// The bytes of the page tables for [`layout::PAGE_TABLES`], if the protocol starts with paging on.
pub(super) fn page_tables(entry: Entry) -> Option<Vec<u8>> {
    match entry {
        Entry::Linux64(_) => Some(page_tables::identity_4gib(layout::PAGE_TABLES)),
        Entry::Pvh(_) => None,
    }
}

/// The registers at `entry`.
pub(super) fn boot_state(entry: Entry) -> BootState {
    let off = BootState {
        mode: CpuMode::Protected,
        rip: 0,
        rflags: RFLAGS,
        rsp: layout::STACK_TOP,
        rbx: 0,
        rsi: 0,
        cr0: CR0_PE,
        cr3: 0,
        cr4: 0,
        efer: 0,
        gdt: DescriptorTable {
            base: layout::GDT,
            limit: (GDT_ENTRIES * 8 - 1) as u16,
        },
        idt: DescriptorTable::default(),
        code: CODE_32,
        data: DATA,
        task: TASK,
    };
    match entry {
        Entry::Linux64(rip) => BootState {
            mode: CpuMode::Long,
            rip,
            rsi: layout::BOOT_PARAMS,
            cr0: CR0_PE | CR0_PG,
            cr3: layout::PAGE_TABLES,
            cr4: CR4_PAE,
            efer: EFER_LME | EFER_LMA,
            code: CODE_64,
            ..off
        },
        Entry::Pvh(rip) => BootState {
            rip: rip.into(),
            rbx: layout::START_INFO,
            ..off
        },
    }
}
