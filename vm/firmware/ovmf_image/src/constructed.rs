//! Images for tests: the structure of real ones, without code.

use crate::smm::LZMA;
use crate::smm::SMM_ACCESS_PEIM;
use crate::volume::Guid;
use crate::volume::checksum;
use lzma_rust2::LzmaOptions;
use lzma_rust2::LzmaWriter;
use std::io::Write as _;
use uuid::uuid;

/// Volumes with files.
const FILE_SYSTEM: Guid = uuid!("8c8ce578-8a3d-4f1c-9935-896185c32dd3").to_bytes_le();

/// Kinds of files: a PEIM, and the one that sets up memory for System Management Mode.
const PEIM: u8 = 0x06;
const SMM_PEIM: u8 = 0x86;
/// A file that only fills a gap.
const FILLER: u8 = 0xf0;

const HEADER: usize = 0x48;
const SEC_LEN: usize = 0x3_4000;

/// The content by which a build is found to need System Management Mode or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Smm {
    /// A PEI phase that does not set up memory for it.
    Without,
    /// No PEI phase, and no SMM core.
    WithoutPei,
    /// A PEI phase that sets up memory for it.
    Peim,
    /// No PEI phase, and an SMM core.
    Core,
}

/// Corrects the checksum of the volume header at the start.
pub fn fix_checksum(bytes: &mut [u8]) {
    bytes[50..52].fill(0);
    let sum = checksum(&bytes[..HEADER]);
    bytes[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
}

/// A volume of `len` bytes, all 0xff after the header.
fn volume(guid: Guid, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; len];
    bytes[..HEADER].fill(0);
    bytes[16..32].copy_from_slice(&guid);
    bytes[32..40].copy_from_slice(&(len as u64).to_le_bytes());
    bytes[40..44].copy_from_slice(b"_FVH");
    bytes[44..48].copy_from_slice(&0x4_feff_u32.to_le_bytes());
    bytes[48] = HEADER as u8;
    bytes[55] = 2;
    bytes[56..60].copy_from_slice(&((len / 0x1000) as u32).to_le_bytes());
    bytes[60..64].copy_from_slice(&0x1000_u32.to_le_bytes());
    fix_checksum(&mut bytes);
    bytes
}

/// A volume of `len` bytes with these files: kind, and body.
fn volume_of(len: usize, files: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = volume(FILE_SYSTEM, len);
    let mut at = HEADER;
    for (kind, body) in files {
        at = at.next_multiple_of(8);
        let file_len = 24 + body.len();
        let name = match *kind {
            SMM_PEIM => SMM_ACCESS_PEIM,
            FILLER => [0xff; 16],
            kind => [kind; 16],
        };
        bytes[at..at + 16].copy_from_slice(&name);
        bytes[at + 18] = if *kind == SMM_PEIM { PEIM } else { *kind };
        bytes[at + 19] = 0;
        bytes[at + 20..at + 23].copy_from_slice(&(file_len as u32).to_le_bytes()[..3]);
        bytes[at + 24..at + file_len].copy_from_slice(body);
        at += file_len;
    }
    bytes
}

fn section(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((body.len() + 4) as u32).to_le_bytes().to_vec();
    bytes[3] = kind;
    bytes.extend(body);
    bytes
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let options = LzmaOptions::with_preset(1);
    let mut writer = LzmaWriter::new_use_header(Vec::new(), &options, Some(bytes.len() as u64))
        .expect("options of its own");
    writer.write_all(bytes).expect("memory is written to");
    writer.finish().expect("memory is written to")
}

/// The top bytes of a linear congruential generator.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The code of an OVMF build of `flash_len` bytes: that without the variables.
pub fn code(flash_len: usize, smm: Smm) -> Vec<u8> {
    let len = flash_len - variables_len(flash_len);
    let pe = section(0x10, b"MZ");
    let pei: &[(u8, &[u8])] = match smm {
        Smm::Without => &[(2, &pe), (FILLER, &[]), (4, &pe), (PEIM, &pe)],
        Smm::Peim => &[(2, &pe), (FILLER, &[]), (4, &pe), (SMM_PEIM, &pe)],
        Smm::WithoutPei | Smm::Core => &[(PEIM, &pe)],
    };
    // More than is decompressed in steps, then something that does not compress.
    let filler = [vec![0; 0x20_0000], noise(0x1_0000)].concat();
    let dxe: &[(u8, &[u8])] = match smm {
        Smm::Core => &[(5, &pe), (7, &filler), (0x0d, &pe)],
        _ => &[(5, &pe), (7, &filler)],
    };
    let inner = [
        section(0x17, &volume_of(0x2000, pei)),
        section(0x17, &volume_of(0x21_1000, dxe)),
    ]
    .concat();
    let mut packed = LZMA.to_vec();
    packed.extend(24_u16.to_le_bytes());
    packed.extend(1_u16.to_le_bytes());
    packed.extend(compress(&inner));
    let main = volume_of(len - SEC_LEN, &[(0x0b, &section(0x02, &packed))]);
    [main, sec(SEC_LEN)].concat()
}

fn sec(len: usize) -> Vec<u8> {
    sec_with(len, &section(0x12, b"VZ"))
}

fn sec_with(len: usize, section: &[u8]) -> Vec<u8> {
    let mut bytes = volume_of(len, &[(FILLER, &[]), (3, section)]);
    // The reset vector: a jump.
    bytes[len - 16..].fill(0x90);
    bytes[len - 14] = 0xe9;
    bytes
}

fn variables_len(flash_len: usize) -> usize {
    if flash_len >= 4 << 20 {
        0x8_4000
    } else {
        0x2_0000
    }
}

/// A variable store of `len` bytes without variables.
pub fn variables(len: usize) -> Vec<u8> {
    crate::fresh_variables(len as u64).expect("a known size")
}

/// Length of the compressed data in `image`.
pub fn packed_len(image: &[u8]) -> Option<usize> {
    let section = lzma_header(image)? - 24;
    let [a, b, c, _] = *image.get(section..)?.first_chunk()?;
    Some(u32::from_le_bytes([a, b, c, 0]) as usize - 24)
}

/// A whole OVMF build of `flash_len` bytes.
pub fn combined(flash_len: usize, smm: Smm) -> Vec<u8> {
    [variables(variables_len(flash_len)), code(flash_len, smm)].concat()
}

/// An MSVM image, whose SEC phase is a PE image.
pub fn msvm() -> Vec<u8> {
    msvm_with(0x10, &pe(0x100))
}

/// An MSVM image whose SEC phase is a section of this kind.
pub fn msvm_with(kind: u8, body: &[u8]) -> Vec<u8> {
    let pe = section(0x10, b"MZ");
    [
        volume_of(0x4e_0000, &[(5, &pe)]),
        volume_of(0x10_0000, &[(4, &pe), (6, &pe)]),
        sec_with(0x2_0000, &section(kind, body)),
    ]
    .concat()
}

/// An MSVM image of `len` bytes without DXE phase.
pub fn small_msvm(len: usize) -> Vec<u8> {
    const SEC: usize = 0x2_0000;
    let sec = sec_with(SEC, &section(0x10, &pe(0x100)));
    [volume_of(len - SEC, &[(4, &section(0x10, b"MZ"))]), sec].concat()
}

/// A PE image of 0x200 bytes that is entered at `entry`.
pub fn pe(entry: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x200];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x68..0x6c].copy_from_slice(&entry.to_le_bytes());
    bytes
}

/// A TE image of 0x200 bytes that is entered at `entry`, and has lost `stripped` bytes of headers.
pub fn te(entry: u32, stripped: u16) -> Vec<u8> {
    let mut bytes = vec![0; 0x200];
    bytes[..2].copy_from_slice(b"VZ");
    bytes[6..8].copy_from_slice(&stripped.to_le_bytes());
    bytes[8..12].copy_from_slice(&entry.to_le_bytes());
    bytes
}

/// Offset of the compressed data in `image`.
pub fn lzma_header(image: &[u8]) -> Option<usize> {
    let at = image.windows(16).position(|window| window == LZMA)?;
    Some(at + 20)
}
