//! Firmware of a few instructions, which acts as the guest's operating system too: commands on its console make it
//! hibernate, wake up, power off or reset. It prints its version, and a digest that it computes of itself.

/// The console line that makes a [`rom`] announce that it is awake from S4.
pub const WAKE: &str = "w";
/// The console line that makes it announce and enter S4.
pub const HIBERNATE: &str = "h";
/// The console line that makes it announce and enter S5.
pub const POWER_OFF: &str = "p";
/// The console line that makes it reset the machine.
pub const RESET: &str = "r";

/// The start of the line with its version and digest.
pub const BANNER: &str = "rom ";
/// The line that follows [`WAKE`].
pub const AWAKE: &str = "awake";

/// How large a [`rom`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RomSize {
    /// 64 KiB.
    Small,
    /// 128 KiB.
    Large,
}

/// A firmware image with one volume, which holds only a SEC phase. The filling depends on `version`. Its
/// banner is [`BANNER`], the version in decimal, and its [`rom_digest`].
pub fn rom(version: u16, size: RomSize) -> Vec<u8> {
    let len = match size {
        RomSize::Small => SEGMENT,
        RomSize::Large => 2 * SEGMENT,
    };
    let mut rom = vec![0; len];
    let mut state = u32::from(version);
    for byte in &mut rom {
        // A linear congruential generator.
        state = state.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        *byte = (state >> 24) as u8;
    }
    header(&mut rom);
    let segment = len - SEGMENT;
    let mut put = |at: usize, bytes: &[u8]| {
        rom[segment + at..segment + at + bytes.len()].copy_from_slice(bytes);
    };
    put(CODE_AT, &CODE);
    put(TEXT_AT, format!("{BANNER}{version} \0").as_bytes());
    put(NEWLINE_AT, b"\n\0");
    put(AWAKE_AT, format!("{AWAKE}\n\0").as_bytes());
    put(RESET_VECTOR_AT, &RESET_VECTOR);
    rom
}

/// The digest that a [`rom`] prints: FNV-1a over the 32-bit words of its last 64 KiB, in hexadecimal.
pub fn rom_digest(rom: &[u8]) -> String {
    let (words, _) = rom[rom.len() - SEGMENT..].as_chunks::<4>();
    let digest = words.iter().fold(0x811c_9dc5_u32, |digest, word| {
        (digest ^ u32::from_le_bytes(*word)).wrapping_mul(0x0100_0193)
    });
    format!("{digest:08x}")
}

/// The segment that 16-bit code can reach: the last 64 KiB below 4 GiB, where the processor starts.
const SEGMENT: usize = 0x1_0000;

/// The header of a firmware volume, and of its only file (UEFI Platform Initialization specification, volume 3).
fn header(rom: &mut [u8]) {
    const FILE_SYSTEM: [u8; 16] = [
        0x78, 0xe5, 0x8c, 0x8c, 0x3d, 0x8a, 0x1c, 0x4f, 0x99, 0x35, 0x89, 0x61, 0x85, 0xc3, 0x2d,
        0xd3,
    ];
    const LEN: usize = 0x48;
    const BLOCK: u32 = 0x1000;
    const SECURITY_CORE: u8 = 3;
    const RAW_SECTION: u8 = 0x19;

    let len = rom.len();
    rom[..LEN].fill(0);
    rom[16..32].copy_from_slice(&FILE_SYSTEM);
    rom[32..40].copy_from_slice(&(len as u64).to_le_bytes());
    rom[40..44].copy_from_slice(b"_FVH");
    rom[48] = LEN as u8;
    rom[55] = 2;
    rom[56..60].copy_from_slice(&(len as u32 / BLOCK).to_le_bytes());
    rom[60..64].copy_from_slice(&BLOCK.to_le_bytes());
    let (words, _) = rom[..LEN].as_chunks::<2>();
    let sum = words.iter().fold(0_u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes(*word))
    });
    rom[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());

    // The file: name, no checksums, kind, no attributes, 24-bit length with this header, state. In it is one section.
    let file = &mut rom[LEN..];
    let file_len = file.len() as u32;
    file[..16].fill(0x52);
    file[16..18].fill(0);
    file[18] = SECURITY_CORE;
    file[19] = 0;
    file[20..23].copy_from_slice(&file_len.to_le_bytes()[..3]);
    file[23] = 0xf8;
    file[24..27].copy_from_slice(&(file_len - 24).to_le_bytes()[..3]);
    file[27] = RAW_SECTION;
}

/// Offsets into the segment.
const CODE_AT: usize = 0xf000;
const TEXT_AT: usize = 0xf0b0;
const NEWLINE_AT: usize = 0xf0c0;
const AWAKE_AT: usize = 0xf0c8;
const RESET_VECTOR_AT: usize = 0xfff0;

/// A jump to the code.
const RESET_VECTOR: [u8; 3] = [0xe9, 0x0d, 0xf0];

#[rustfmt::skip]
const CODE: [u8; 0xa5] = [
    0xfa,                                     // 00          cli
    0xfc,                                     // 01          cld
    0x31, 0xc0,                               // 02          xor ax, ax
    0x8e, 0xd0,                               // 04          mov ss, ax
    0xbc, 0x00, 0x70,                         // 06          mov sp, 0x7000
    0x66, 0xbb, 0xc5, 0x9d, 0x1c, 0x81,       // 09          mov ebx, 0x811c9dc5
    0x31, 0xf6,                               // 0f          xor si, si
    0x2e, 0x66, 0x33, 0x1c,                   // 11 next:    xor ebx, cs:[si]
    0x66, 0x69, 0xdb, 0x93, 0x01, 0x00, 0x01, // 15          imul ebx, ebx, 0x1000193
    0x83, 0xc6, 0x04,                         // 1c          add si, 4
    0x75, 0xf0,                               // 1f          jnz next
    0xbe, 0xb0, 0xf0,                         // 21          mov si, TEXT_AT
    0xe8, 0x64, 0x00,                         // 24          call print
    0xb9, 0x08, 0x00,                         // 27          mov cx, 8
    0x66, 0xc1, 0xc3, 0x04,                   // 2a digit:   rol ebx, 4
    0x88, 0xd8,                               // 2e          mov al, bl
    0x24, 0x0f,                               // 30          and al, 0xf
    0x3c, 0x0a,                               // 32          cmp al, 10
    0x72, 0x02,                               // 34          jb decimal
    0x04, 0x27,                               // 36          add al, 'a' - 10 - '0'
    0x04, 0x30,                               // 38 decimal: add al, '0'
    0xe8, 0x5a, 0x00,                         // 3a          call put
    0xe2, 0xeb,                               // 3d          loop digit
    0xbe, 0xc0, 0xf0,                         // 3f          mov si, NEWLINE_AT
    0xe8, 0x46, 0x00,                         // 42          call print
    0xba, 0xfd, 0x03,                         // 45 command: mov dx, 0x3fd (line status)
    0xec,                                     // 48 poll:    in al, dx
    0xa8, 0x01,                               // 49          test al, 1 (data ready)
    0x74, 0xfb,                               // 4b          jz poll
    0xb2, 0xf8,                               // 4d          mov dl, 0xf8
    0xec,                                     // 4f          in al, dx
    0xba, 0x06, 0x05,                         // 50          mov dx, 0x506 (sleep announcements)
    0x3c, b'h',                               // 53          cmp al, HIBERNATE
    0x74, 0x17,                               // 55          je hibernate
    0x3c, b'p',                               // 57          cmp al, POWER_OFF
    0x74, 0x1b,                               // 59          je off
    0x3c, b'r',                               // 5b          cmp al, RESET
    0x74, 0x24,                               // 5d          je reset
    0x3c, b'w',                               // 5f          cmp al, WAKE
    0x75, 0xe2,                               // 61          jne command
    0xb0, 0x24,                               // 63          mov al, 0x24 (awake from S4)
    0xee,                                     // 65          out dx, al
    0xbe, 0xc8, 0xf0,                         // 66          mov si, AWAKE_AT
    0xe8, 0x1f, 0x00,                         // 69          call print
    0xeb, 0xd7,                               // 6c          jmp command
    0xb0, 0x14,                               // 6e hibernate: mov al, 0x14 (preparing for S4)
    0xee,                                     // 70          out dx, al
    0xb8, 0x00, 0x24,                         // 71          mov ax, 0x2400 (sleep, type 1)
    0xeb, 0x06,                               // 74          jmp sleep
    0xb0, 0x15,                               // 76 off:     mov al, 0x15 (preparing for S5)
    0xee,                                     // 78          out dx, al
    0xb8, 0x00, 0x20,                         // 79          mov ax, 0x2000 (sleep, type 0)
    0xba, 0x04, 0x06,                         // 7c sleep:   mov dx, 0x604 (PM1a control)
    0xef,                                     // 7f          out dx, ax
    0xf4,                                     // 80 halt:    hlt
    0xeb, 0xfd,                               // 81          jmp halt
    0xba, 0xf9, 0x0c,                         // 83 reset:   mov dx, 0xcf9
    0xb0, 0x06,                               // 86          mov al, 6
    0xee,                                     // 88          out dx, al
    0xeb, 0xf5,                               // 89          jmp halt
    0x2e, 0xac,                               // 8b print:   lodsb cs:[si]
    0x84, 0xc0,                               // 8d          test al, al
    0x74, 0x05,                               // 8f          jz printed
    0xe8, 0x03, 0x00,                         // 91          call put
    0xeb, 0xf5,                               // 94          jmp print
    0xc3,                                     // 96 printed: ret
    0x50,                                     // 97 put:     push ax
    0xba, 0xfd, 0x03,                         // 98          mov dx, 0x3fd
    0xec,                                     // 9b full:    in al, dx
    0xa8, 0x20,                               // 9c          test al, 0x20 (transmitter empty)
    0x74, 0xfb,                               // 9e          jz full
    0xb2, 0xf8,                               // a0          mov dl, 0xf8
    0x58,                                     // a2          pop ax
    0xee,                                     // a3          out dx, al
    0xc3,                                     // a4          ret
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_firmware_to_the_vmm() {
        for (size, len) in [(RomSize::Small, 0x1_0000), (RomSize::Large, 0x2_0000)] {
            let rom = rom(7, size);
            assert_eq!(rom.len(), len);
            let Ok(ovmf_image::FirmwareKind::Ovmf(ovmf)) =
                ovmf_image::FirmwareKind::recognize(&rom)
            else {
                panic!("{:?}", ovmf_image::FirmwareKind::recognize(&rom));
            };
            assert_eq!(ovmf.code.range, 0..len);
            assert_eq!(ovmf.variables_len, 0);
            ovmf_image::runs_without_smm(&rom).unwrap();
        }
    }

    #[test]
    fn versions_and_single_bits_have_their_own_digests() {
        let first = rom(1, RomSize::Small);
        assert_ne!(rom_digest(&first), rom_digest(&rom(2, RomSize::Small)));
        let mut flipped = first.clone();
        flipped[0x8000] ^= 1;
        assert_ne!(rom_digest(&first), rom_digest(&flipped));
    }

    #[test]
    fn the_code_fits_between_its_neighbours() {
        const { assert!(CODE_AT + CODE.len() <= TEXT_AT) };
        let text = format!("{BANNER}{} \0", u16::MAX);
        assert!(TEXT_AT + text.len() <= NEWLINE_AT);
        assert!(AWAKE_AT + AWAKE.len() + 2 <= RESET_VECTOR_AT);
        // The jump is relative to the next instruction, within the segment.
        let [_, low, high] = RESET_VECTOR;
        let target = RESET_VECTOR_AT + 3 + usize::from(u16::from_le_bytes([low, high]));
        assert_eq!(target % SEGMENT, CODE_AT);
    }
}
