//! A guest that runs a guest of its own with SVM (AMD's manual, volume 2, chapter 15), in a VMCB as its appendix B has it.
//!
//! The outer guest turns on paging and SVM, fills in a VMCB from a table, and executes `vmrun`, from which it never returns.
//! The inner guest is in protected mode without paging, and intercepts nothing: it has the machine's devices to itself.

use super::BASE;
use super::FLOOD_LINE;
use super::elf;
use super::flood_line;

/// A guest whose inner guest prints `lines` (at least 1) numbered lines, each as [`flood_line`] has it, to the 16550 at 0x3f8,
/// and then resets the machine. It waits for some milliseconds before each line.
pub fn inner_guest(lines: u32) -> Vec<u8> {
    let mut code = OUTER.to_vec();
    code.resize(INNER, 0);
    code.extend(INNER_CODE);
    code[LINES..LINES + 4].copy_from_slice(&lines.to_le_bytes());
    code.resize(LINE, 0);
    code.extend(flood_line(1).as_bytes());
    code.resize(TABLE, 0);
    for (offset, value) in VMCB_FIELDS {
        code.extend((VMCB + offset).to_le_bytes());
        code.extend(value.to_le_bytes());
    }
    // The end of the table.
    code.extend([0; 4]);
    elf(&code)
}

/// Where the page directory is, two pages before the VMCB.
const VMCB: u32 = 0x20_2000;

/// Offsets into the code.
const INNER: usize = 0x80;
const LINES: usize = INNER + 9;
const LINE: usize = 0xd0;
/// Where the table of the VMCB's fields is.
const TABLE: usize = LINE + FLOOD_LINE;

#[rustfmt::skip]
const OUTER: [u8; 0x6f] = [
    0xfc,                                     // 00       cld
    0xbf, 0x00, 0x00, 0x20, 0x00,             // 01       mov edi, page directory
    0x31, 0xc0,                               // 06       xor eax, eax
    0xb9, 0x00, 0x0c, 0x00, 0x00,             // 08       mov ecx, 3 pages
    0xf3, 0xab,                               // 0d       rep stosd
    0xb8, 0x83, 0x00, 0x00, 0x00,             // 0f       mov eax, 0x83 (4 MiB, writable, present)
    0xa3, 0x00, 0x00, 0x20, 0x00,             // 14       mov [page directory], eax
    0xb8, 0x00, 0x00, 0x20, 0x00,             // 19       mov eax, page directory
    0x0f, 0x22, 0xd8,                         // 1e       mov cr3, eax
    0xb8, 0x10, 0x00, 0x00, 0x00,             // 21       mov eax, PSE
    0x0f, 0x22, 0xe0,                         // 26       mov cr4, eax
    0xb9, 0x80, 0x00, 0x00, 0xc0,             // 29       mov ecx, EFER
    0x0f, 0x32,                               // 2e       rdmsr
    0x80, 0xcc, 0x10,                         // 30       or ah, SVME
    0x0f, 0x30,                               // 33       wrmsr
    0xb9, 0x17, 0x01, 0x01, 0xc0,             // 35       mov ecx, VM_HSAVE_PA
    0xb8, 0x00, 0x10, 0x20, 0x00,             // 3a       mov eax, page directory + 0x1000
    0x31, 0xd2,                               // 3f       xor edx, edx
    0x0f, 0x30,                               // 41       wrmsr
    0x0f, 0x20, 0xc0,                         // 43       mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80,             // 46       or eax, PG
    0x0f, 0x22, 0xc0,                         // 4b       mov cr0, eax
    0xbe, 0xe0, 0x00, 0x10, 0x00,             // 4e       mov esi, TABLE
    0xad,                                     // 53 next: lodsd
    0x85, 0xc0,                               // 54       test eax, eax
    0x74, 0x07,                               // 56       jz run
    0x89, 0xc7,                               // 58       mov edi, eax
    0xad,                                     // 5a       lodsd
    0x89, 0x07,                               // 5b       mov [edi], eax
    0xeb, 0xf4,                               // 5d       jmp next
    0xb8, 0x00, 0x20, 0x20, 0x00,             // 5f run:  mov eax, VMCB
    0x0f, 0x01, 0xd8,                         // 64       vmrun
    0x0f, 0x01, 0x1d, 0x00, 0x00, 0x20, 0x01, // 67       lidt [an empty one: memory of no use]
    0xf4,                                     // 6e       hlt
];

#[rustfmt::skip]
const INNER_CODE: [u8; 0x4e] = [
    0xba, 0xfa, 0x03, 0x00, 0x00,             // 00       mov edx, 0x3fa (FIFO control)
    0xb0, 0x07,                               // 05       mov al, 7 (enable and clear)
    0xee,                                     // 07       out dx, al
    0xbd, 0x00, 0x00, 0x00, 0x00,             // 08       mov ebp, LINES
    0xb9, 0x00, 0x00, 0x40, 0x00,             // 0d next: mov ecx, 4 M
    0xe2, 0xfe,                               // 12 idle: loop idle
    0xba, 0xfd, 0x03, 0x00, 0x00,             // 14       mov edx, 0x3fd (line status)
    0xec,                                     // 19 wait: in al, dx
    0xa8, 0x20,                               // 1a       test al, 0x20 (transmitter empty)
    0x74, 0xfb,                               // 1c       jz wait
    0xba, 0xf8, 0x03, 0x00, 0x00,             // 1e       mov edx, 0x3f8
    0xbe, 0xd0, 0x00, 0x10, 0x00,             // 23       mov esi, LINE
    0xb9, 0x10, 0x00, 0x00, 0x00,             // 28       mov ecx, 16
    0xf3, 0x6e,                               // 2d       rep outsb
    0xbf, 0xde, 0x00, 0x10, 0x00,             // 2f       mov edi, LINE + 14 (the last digit)
    0xfe, 0x07,                               // 34 more: inc byte [edi]
    0x80, 0x3f, 0x3a,                         // 36       cmp byte [edi], '9' + 1
    0x75, 0x06,                               // 39       jne done
    0xc6, 0x07, 0x30,                         // 3b       mov byte [edi], '0'
    0x4f,                                     // 3e       dec edi
    0xeb, 0xf3,                               // 3f       jmp more
    0x4d,                                     // 41 done: dec ebp
    0x75, 0xc9,                               // 42       jnz next
    0xba, 0xf9, 0x0c, 0x00, 0x00,             // 44       mov edx, 0xcf9 (reset control)
    0xb0, 0x06,                               // 49       mov al, 6
    0xee,                                     // 4b       out dx, al
    0xeb, 0xfe,                               // 4c stop: jmp stop
];

/// Offsets and values of the VMCB's fields that are not zero.
const VMCB_FIELDS: [(u32, u32); 22] = [
    // Intercepts of the instruction VMRUN, which must be; the address space id.
    (0x010, 1),
    (0x058, 1),
    // ES, CS, SS, DS: attributes, limits.
    (0x400, 0x0c93_0000),
    (0x404, u32::MAX),
    (0x410, 0x0c9b_0000),
    (0x414, u32::MAX),
    (0x420, 0x0c93_0000),
    (0x424, u32::MAX),
    (0x430, 0x0c93_0000),
    (0x434, u32::MAX),
    // LDTR, TR.
    (0x470, 0x0082_0000),
    (0x490, 0x008b_0000),
    (0x494, 0xffff),
    // EFER with SVME, CR0, DR7, DR6, RFLAGS, RIP, RSP.
    (0x4d0, 0x1000),
    (0x558, 0x11),
    (0x560, 0x400),
    (0x568, 0xffff_0ff0),
    (0x570, 2),
    (0x578, BASE + INNER as u32),
    (0x5d8, BASE),
    // PAT.
    (0x668, 0x0007_0406),
    (0x66c, 0x0007_0406),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_where_the_code_expects_them() {
        let elf = inner_guest(0x1234_5678);
        let start = elf.windows(7).position(|code| code == &OUTER[..7]).unwrap();
        let code = &elf[start..];
        let address = |offset: usize| (BASE as usize + offset).to_le_bytes();
        assert_eq!(OUTER[0x4f..0x53], address(TABLE)[..4]);
        assert_eq!(INNER_CODE[0x24..0x28], address(LINE)[..4]);
        assert_eq!(INNER_CODE[0x30..0x34], address(LINE + 14)[..4]);
        assert_eq!(code[LINES..LINES + 4], [0x78, 0x56, 0x34, 0x12]);
        assert_eq!(&code[LINE..LINE + FLOOD_LINE], b"000000000000001\n");
        assert_eq!(code[TABLE..TABLE + 4], (VMCB + 0x010).to_le_bytes());
    }
}
