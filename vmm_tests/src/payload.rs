//! Guests of a few dozen instructions: [firmware](rom()), and ELF files with an entry point for the PVH protocol (Xen's
//! `docs/misc/pvh.pandoc`: 32-bit protected mode, flat segments, no paging).

mod firmware;
mod nested;
mod rom;

pub use firmware::firmware_of_version;
pub use nested::inner_guest;
pub use rom::AWAKE;
pub use rom::BANNER;
pub use rom::HIBERNATE;
pub use rom::POWER_OFF;
pub use rom::RESET;
pub use rom::RomSize;
pub use rom::WAKE;
pub use rom::rom;
pub use rom::rom_digest;

/// Where a payload is loaded and entered.
const BASE: u32 = 0x10_0000;

/// The length of a line that [`flood`] prints.
pub const FLOOD_LINE: usize = 16;

/// A guest that ends with a triple fault at once.
pub fn triple_fault() -> Vec<u8> {
    elf(&CODE[FAULT..])
}

/// A guest that prints `lines` (at least 1) numbered lines to the 16550 at 0x3f8, then triple-faults. It writes 16 bytes
/// each time the UART's transmitter is empty.
pub fn flood(lines: u32) -> Vec<u8> {
    let mut code = CODE.to_vec();
    code[LINES..LINES + 4].copy_from_slice(&lines.to_le_bytes());
    // The limit and base of an empty interrupt table, and the first line.
    code.resize(IDT, 0);
    code.resize(LINE, 0);
    code.extend(flood_line(1).as_bytes());
    elf(&code)
}

/// The line with this number, counted from 1.
pub fn flood_line(number: u32) -> String {
    format!("{number:015}\n")
}

/// Offsets into the code.
const LINES: usize = 0x0a;
const FAULT: usize = 0x3e;
const IDT: usize = 0x58;
const LINE: usize = 0x60;

#[rustfmt::skip]
const CODE: [u8; 0x47] = [
    0xfc,                                     // 00       cld
    0xba, 0xfa, 0x03, 0x00, 0x00,             // 01       mov edx, 0x3fa (FIFO control)
    0xb0, 0x07,                               // 06       mov al, 7 (enable and clear)
    0xee,                                     // 08       out dx, al
    0xbd, 0x00, 0x00, 0x00, 0x00,             // 09       mov ebp, LINES
    0xba, 0xfd, 0x03, 0x00, 0x00,             // 0e next: mov edx, 0x3fd (line status)
    0xec,                                     // 13 wait: in al, dx
    0xa8, 0x20,                               // 14       test al, 0x20 (transmitter empty)
    0x74, 0xfb,                               // 16       jz wait
    0xba, 0xf8, 0x03, 0x00, 0x00,             // 18       mov edx, 0x3f8
    0xbe, 0x60, 0x00, 0x10, 0x00,             // 1d       mov esi, LINE
    0xb9, 0x10, 0x00, 0x00, 0x00,             // 22       mov ecx, 16
    0xf3, 0x6e,                               // 27       rep outsb
    0xbf, 0x6e, 0x00, 0x10, 0x00,             // 29       mov edi, LINE + 14 (the last digit)
    0xfe, 0x07,                               // 2e more: inc byte [edi]
    0x80, 0x3f, 0x3a,                         // 30       cmp byte [edi], '9' + 1
    0x75, 0x06,                               // 33       jne done
    0xc6, 0x07, 0x30,                         // 35       mov byte [edi], '0'
    0x4f,                                     // 38       dec edi
    0xeb, 0xf3,                               // 39       jmp more
    0x4d,                                     // 3b done: dec ebp
    0x75, 0xd0,                               // 3c       jnz next
    0x0f, 0x01, 0x1d, 0x58, 0x00, 0x10, 0x00, // 3e       lidt [IDT]
    0x0f, 0x0b,                               // 45       ud2
];

/// An ELF file that loads `code` at [`BASE`] and names it as its PVH entry point.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADER: u64 = 64;
    const PROGRAM_HEADER: u64 = 56;
    const NOTE: u64 = HEADER + 2 * PROGRAM_HEADER;
    /// Zeroed memory after the code.
    const SPARE: u64 = 0x100;

    // Owner "Xen", a 4-byte value, of type XEN_ELFNOTE_PHYS32_ENTRY.
    let mut note = Vec::new();
    for word in [4, 4, 18] {
        note.extend(u32::to_le_bytes(word));
    }
    note.extend(b"Xen\0");
    note.extend(BASE.to_le_bytes());
    let note_len = note.len() as u64;

    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend(2_u16.to_le_bytes()); // executable
    elf.extend(62_u16.to_le_bytes()); // x86-64
    elf.extend(1_u32.to_le_bytes());
    elf.extend(u64::from(BASE).to_le_bytes()); // entry
    elf.extend(HEADER.to_le_bytes()); // program headers
    elf.extend(0_u64.to_le_bytes()); // no sections
    elf.extend(0_u32.to_le_bytes());
    for half in [64, 56, 2, 0, 0, 0] {
        elf.extend(u16::to_le_bytes(half));
    }
    let mut program_header = |kind: u32, flags: u32, fields: [u64; 6]| {
        elf.extend(kind.to_le_bytes());
        elf.extend(flags.to_le_bytes());
        for field in fields {
            elf.extend(field.to_le_bytes());
        }
    };
    let (base, code_len) = (u64::from(BASE), code.len() as u64);
    // Offset, virtual and physical address, length in the file and in memory, alignment.
    let code_at = NOTE + note_len;
    program_header(1, 7, [code_at, base, base, code_len, code_len + SPARE, 1]);
    program_header(4, 4, [NOTE, 0, 0, note_len, note_len, 4]);
    elf.extend(note);
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_counts_from_its_first_line() {
        let elf = flood(0x1234_5678);
        let code = elf.len() - LINE - FLOOD_LINE;
        assert_eq!(elf[code], 0xfc);
        assert_eq!(
            elf[code + LINES..code + LINES + 4],
            [0x78, 0x56, 0x34, 0x12]
        );
        assert!(elf.ends_with(b"000000000000001\n"));
        assert_eq!(flood_line(1).len(), FLOOD_LINE);
    }

    #[test]
    fn the_triple_fault_guest_is_only_the_fault() {
        // The IDT that it loads is in the zeroed memory after the code.
        let elf = triple_fault();
        assert!(elf.ends_with(&[0x0f, 0x01, 0x1d, 0x58, 0, 0x10, 0, 0x0f, 0x0b]));
    }
}
