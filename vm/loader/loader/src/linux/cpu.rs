//! The boot processor's registers and segments for each boot protocol.

use super::kernel::Entry;
use super::layout;
use crate::BootSegment;
use crate::DescriptorTable;
use crate::VpRegister;

const CR0_PE: u64 = 1 << 0;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The flag that always reads 1, and no other.
const RFLAGS: u64 = 1 << 1;

/// Accessed, readable, present code at privilege level 0, its limit in pages.
const CODE: u16 = 0x809b;
const LONG: u16 = 1 << 13;
const BITS_32: u16 = 1 << 14;

/// The code segment for PVH.
const CODE_32: BootSegment = BootSegment {
    selector: 0x08,
    base: 0,
    limit: u32::MAX,
    attributes: CODE | BITS_32,
};

/// The code segment at the selector that the 64-bit protocol names `__BOOT_CS`.
const CODE_64: BootSegment = BootSegment {
    selector: 0x10,
    base: 0,
    limit: u32::MAX,
    attributes: CODE | LONG,
};

/// The data segment at `__BOOT_DS`.
const DATA: BootSegment = BootSegment {
    selector: 0x18,
    base: 0,
    limit: u32::MAX,
    attributes: 0xc093,
};

/// A busy TSS: VM entry fails without one.
pub(super) const TASK: BootSegment = BootSegment {
    selector: 0x20,
    base: 0,
    limit: 0x67,
    attributes: 0x008b,
};

/// Selectors 0 to 0x28; the task segment takes two entries in 64-bit mode.
const GDT_ENTRIES: usize = 6;

/// The bytes of the descriptor table for [`layout::GDT`].
pub(super) fn gdt() -> Vec<u8> {
    let mut entries = [0u64; GDT_ENTRIES];
    for segment in [CODE_32, CODE_64, DATA, TASK] {
        entries[usize::from(segment.selector / 8)] = segment.descriptor();
    }
    entries.iter().flat_map(|e| e.to_le_bytes()).collect()
}

/// The registers at `entry`. Interrupts are off; the interrupt descriptor table is empty.
pub(super) fn registers(entry: Entry) -> Vec<VpRegister> {
    let gdt = DescriptorTable {
        base: layout::GDT,
        limit: (GDT_ENTRIES * 8 - 1) as u16,
    };
    let mut registers = vec![
        VpRegister::Rflags(RFLAGS),
        VpRegister::Rsp(layout::STACK_TOP),
        // After reset it holds the processor's signature.
        VpRegister::Rdx(0),
        VpRegister::Gdtr(gdt),
        VpRegister::Idtr(DescriptorTable::default()),
        VpRegister::Ds(DATA),
        VpRegister::Es(DATA),
        VpRegister::Fs(DATA),
        VpRegister::Gs(DATA),
        VpRegister::Ss(DATA),
    ];
    registers.extend(match entry {
        Entry::Linux64(rip) => [
            VpRegister::Rip(rip),
            VpRegister::Rbx(0),
            VpRegister::Rsi(layout::BOOT_PARAMS),
            VpRegister::Cr0(CR0_PE | CR0_PG),
            VpRegister::Cr3(layout::PAGE_TABLES),
            VpRegister::Cr4(CR4_PAE),
            VpRegister::Efer(EFER_LME | EFER_LMA),
            VpRegister::Cs(CODE_64),
        ],
        Entry::Pvh(rip) => [
            VpRegister::Rip(rip.into()),
            VpRegister::Rbx(layout::START_INFO),
            VpRegister::Rsi(0),
            VpRegister::Cr0(CR0_PE),
            VpRegister::Cr3(0),
            VpRegister::Cr4(0),
            VpRegister::Efer(0),
            VpRegister::Cs(CODE_32),
        ],
    });
    registers
}
