//! A processor's state after RESET.

use super::Activity;
use super::DebugRegisters;
use super::Registers;
use super::SegmentRegister;
use super::TableRegister;

/// Bytes of the local APIC's page that have registers.
pub const LAPIC_SIZE: usize = 1024;

/// Bytes of the legacy region and the header of an XSAVE area, which every area has.
pub const XSAVE_MIN_SIZE: usize = 576;

/// Registers (SDM volume 3, table 10-1). `signature` is EAX of CPUID leaf 1, which RDX has then.
pub fn registers(bsp: bool, signature: u32) -> Registers {
    let data = SegmentRegister {
        limit: 0xffff,
        attributes: 0x93,
        ..Default::default()
    };
    let table = TableRegister {
        base: 0,
        limit: 0xffff,
    };
    Registers {
        rdx: signature.into(),
        rip: 0xfff0,
        rflags: 2,
        cs: SegmentRegister {
            base: 0xffff_0000,
            limit: 0xffff,
            selector: 0xf000,
            attributes: 0x9b,
        },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: SegmentRegister {
            attributes: 0x8b,
            ..data
        },
        ldtr: SegmentRegister {
            attributes: 0x82,
            ..data
        },
        gdtr: table,
        idtr: table,
        cr0: 0x6000_0010,
        // Enabled at its address; bit 8 marks the boot processor.
        apic_base: 0xfee0_0800 | u64::from(bsp) << 8,
        ..Default::default()
    }
}

/// The boot processor executes; the others wait to be started.
pub fn activity(bsp: bool) -> Activity {
    if bsp {
        Activity::Running
    } else {
        Activity::WaitForInit
    }
}

/// Debug registers (SDM volume 3, table 10-1).
pub fn debug_registers() -> DebugRegisters {
    DebugRegisters {
        addresses: [0; 4],
        dr6: 0xffff_0ff0,
        dr7: 0x400,
    }
}

/// An XSAVE area with x87 and SSE as after RESET, and the rest in its initial state.
pub fn xsave() -> Vec<u8> {
    let mut area = vec![0; XSAVE_MIN_SIZE];
    area[0..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    area[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    // XSTATE_BV: x87 and SSE are in the area.
    area[512] = 3;
    area
}

/// The local APIC (SDM volume 3, 12.4.7.1), in xAPIC mode. LINT0 of the boot processor takes the PIC's interrupts, as
/// firmware sets it up. `version` is its version register.
pub fn lapic(version: u32, apic_id: u32, bsp: bool) -> Vec<u8> {
    const ID: usize = 0x20;
    const VERSION: usize = 0x30;
    const DFR: usize = 0xe0;
    const SVR: usize = 0xf0;
    const LVT_CMCI: usize = 0x2f0;
    const LVT_TIMER: usize = 0x320;
    const LVT_LINT0: usize = 0x350;
    const LVT_ERROR: usize = 0x370;
    const MASKED: u32 = 1 << 16;
    const EXT_INT: u32 = 7 << 8;

    let mut page = vec![0; LAPIC_SIZE];
    let mut set = |offset: usize, value: u32| {
        page[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    };
    set(VERSION, version);
    set(ID, apic_id << 24);
    set(DFR, u32::MAX);
    set(SVR, 0xff);
    // Bits 23:16 of the version are the number of LVT entries less one; the seventh is that of CMCI.
    if version >> 16 & 0xff >= 6 {
        set(LVT_CMCI, MASKED);
    }
    for offset in (LVT_TIMER..=LVT_ERROR).step_by(16) {
        set(offset, MASKED);
    }
    if bsp {
        set(LVT_LINT0, EXT_INT);
    }
    page
}
