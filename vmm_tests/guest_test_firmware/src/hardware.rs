//! The machine: ports, registers and memory. The firmware is alone on it, and all memory below 4 GiB is mapped.
#![allow(unsafe_code, reason = "this is the access to the machine")]

use core::arch::asm;
use guest_test_firmware::report::Output;

/// Reads a byte from a port.
pub(crate) fn read_port(port: u16) -> u8 {
    let value;
    // SAFETY: reading a port of this machine does not affect memory that is in use.
    unsafe {
        asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Writes a byte to a port.
pub(crate) fn write_port(port: u16, value: u8) {
    // SAFETY: no device writes to memory that is in use.
    unsafe {
        asm!("out dx, al", in("al") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
}

/// Writes 16 bits to a port.
pub(crate) fn write_port_16(port: u16, value: u16) {
    // SAFETY: as for `write_port`.
    unsafe {
        asm!("out dx, ax", in("ax") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
}

/// Reads 16 bits from a port.
pub(crate) fn read_port_16(port: u16) -> u16 {
    let value;
    // SAFETY: as for `read_port`.
    unsafe {
        asm!("in ax, dx", out("ax") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Reads 32 bits from a port.
pub(crate) fn read_port_32(port: u16) -> u32 {
    let value;
    // SAFETY: as for `read_port`.
    unsafe {
        asm!("in eax, dx", out("eax") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Writes 32 bits to a port.
pub(crate) fn write_port_32(port: u16, value: u32) {
    // SAFETY: a device writes only to memory that it was told, which nothing else uses.
    unsafe {
        asm!("out dx, eax", in("eax") value, in("dx") port, options(nostack, preserves_flags));
    }
}

/// Reads a model-specific register, which must exist.
pub(crate) fn read_msr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Control registers.
pub(crate) struct ControlRegisters {
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
}

/// Reads the control registers.
pub(crate) fn control_registers() -> ControlRegisters {
    let (cr0, cr3, cr4);
    // SAFETY: reading has no effect.
    unsafe {
        asm!(
            "mov {0}, cr0",
            "mov {1}, cr3",
            "mov {2}, cr4",
            out(reg) cr0, out(reg) cr3, out(reg) cr4,
            options(nomem, nostack, preserves_flags),
        );
    }
    ControlRegisters { cr0, cr3, cr4 }
}

/// The selectors of CS, DS, ES, FS, GS and SS.
pub(crate) fn selectors() -> [u16; 6] {
    let (cs, ds, es, fs, gs, ss): (u32, u32, u32, u32, u32, u32);
    // SAFETY: reading has no effect.
    unsafe {
        asm!(
            "mov {0:e}, cs",
            "mov {1:e}, ds",
            "mov {2:e}, es",
            "mov {3:e}, fs",
            "mov {4:e}, gs",
            "mov {5:e}, ss",
            out(reg) cs, out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs, out(reg) ss,
            options(nomem, nostack, preserves_flags),
        );
    }
    [
        cs as u16, ds as u16, es as u16, fs as u16, gs as u16, ss as u16,
    ]
}

/// Base and limit of the global descriptor table.
pub(crate) fn gdtr() -> (u64, u16) {
    let mut table = [0_u8; 10];
    // SAFETY: it writes the ten bytes.
    unsafe {
        asm!("sgdt [{}]", in(reg) table.as_mut_ptr(), options(nostack, preserves_flags));
    }
    let limit = guest_test_firmware::bytes::u16_at(&table, 0).unwrap_or(0);
    let base = guest_test_firmware::bytes::u64_at(&table, 2).unwrap_or(0);
    (base, limit)
}

/// The memory at an address, which must be RAM that nothing writes.
pub(crate) fn memory(gpa: u64, len: usize) -> &'static [u8] {
    // SAFETY: all memory is mapped at its address. The firmware writes only its stack, and what `write_memory` is given.
    unsafe { core::slice::from_raw_parts(gpa as *const u8, len) }
}

/// Reads a word of RAM.
pub(crate) fn read_memory(gpa: u64) -> u64 {
    // SAFETY: as for `memory`.
    unsafe { (gpa as *const u64).read_volatile() }
}

/// Writes a word of RAM that nothing else uses.
pub(crate) fn write_memory(gpa: u64, value: u64) {
    // SAFETY: the caller chose memory that neither the image, its stack nor its configuration is in.
    unsafe { (gpa as *mut u64).write_volatile(value) }
}

/// Reads a number of 64 bits, which need not be aligned.
pub(crate) fn read_u64(gpa: u64) -> u64 {
    let (low, high) = (read_u32(gpa), read_u32(gpa + 4));
    u64::from(high) << 32 | u64::from(low)
}

/// Reads a number of 32 bits, which need not be aligned.
pub(crate) fn read_u32(gpa: u64) -> u32 {
    let mut value = 0;
    for at in (0..4).rev() {
        value = value << 8 | u32::from(read_u8(gpa + at));
    }
    value
}

/// Reads a byte of RAM.
pub(crate) fn read_u8(gpa: u64) -> u8 {
    // SAFETY: as for `memory`.
    unsafe { (gpa as *const u8).read_volatile() }
}

/// Writes a number of 64 bits, which need not be aligned, to RAM that nothing else uses.
pub(crate) fn write_u64(gpa: u64, value: u64) {
    write_u32(gpa, value as u32);
    write_u32(gpa + 4, (value >> 32) as u32);
}

/// Writes a number of 32 bits, which need not be aligned, to RAM that nothing else uses.
pub(crate) fn write_u32(gpa: u64, value: u32) {
    for (at, byte) in (0..).zip(value.to_le_bytes()) {
        write_u8(gpa + at, byte);
    }
}

/// Writes a byte to RAM that nothing else uses.
pub(crate) fn write_u8(gpa: u64, value: u8) {
    // SAFETY: as for `write_memory`.
    unsafe { (gpa as *mut u8).write_volatile(value) }
}

/// A byte of a constant, as it is in the loaded image.
pub(crate) fn constant_byte(bytes: &'static [u8], at: usize) -> u8 {
    match bytes.get(at) {
        // SAFETY: a reference is valid.
        Some(byte) => unsafe { core::ptr::from_ref(byte).read_volatile() },
        None => 0,
    }
}

/// Waits for an interrupt, of which there is none.
pub(crate) fn halt() {
    // SAFETY: it only waits.
    unsafe { asm!("hlt", options(nomem, nostack, preserves_flags)) }
}

/// Ends with a triple fault: there is no interrupt table.
pub(crate) fn crash() -> ! {
    // SAFETY: it does not return.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// COM1.
pub(crate) struct Serial(());

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;
const DATA_READY: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

impl Serial {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Waits for a byte.
    pub(crate) fn read(&mut self) -> u8 {
        while read_port(LINE_STATUS) & DATA_READY == 0 {
            core::hint::spin_loop();
        }
        read_port(DATA)
    }
}

impl Output for Serial {
    fn byte(&mut self, byte: u8) {
        while read_port(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
            core::hint::spin_loop();
        }
        write_port(DATA, byte);
    }
}
