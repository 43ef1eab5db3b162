//! Makes the image of the test firmware, in the form of the firmware of Hyper-V's generation-2 VMs: three volumes (UEFI
//! Platform Initialization specification, volume 3), of which the last has the SEC phase.

use crate::build;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// The lengths of the volumes with DXE, PEI and SEC phase: 6 MiB together.
const DXE_LEN: usize = 0x4e_0000;
const PEI_LEN: usize = 0x10_0000;
const SEC_LEN: usize = 0x2_0000;

/// The offset of the program in the volume with the SEC phase. It is linked for that.
const PROGRAM_AT: usize = 0x1000;

/// The lengths of the headers of a volume, a file and a section.
const VOLUME_HEADER: usize = 0x48;
const FILE_HEADER: usize = 24;
const SECTION_HEADER: usize = 4;

/// `EFI_FIRMWARE_FILE_SYSTEM2_GUID`.
const FILE_SYSTEM: [u8; 16] = [
    0x78, 0xe5, 0x8c, 0x8c, 0x3d, 0x8a, 0x1c, 0x4f, 0x99, 0x35, 0x89, 0x61, 0x85, 0xc3, 0x2d, 0xd3,
];

/// Types of files and sections.
const SEC_CORE: u8 = 3;
const PEI_CORE: u8 = 4;
const DXE_CORE: u8 = 5;
const PE32: u8 = 0x10;
const RAW: u8 = 0x19;

/// Make the image of the test firmware.
#[derive(Args)]
pub(crate) struct TestFirmwareArgs {
    /// The file to write.
    file: PathBuf,
}

pub(crate) fn run(args: &TestFirmwareArgs) -> anyhow::Result<ExitCode> {
    let path = &args.file;
    std::fs::write(path, build()?).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the firmware.
pub(super) fn build() -> anyhow::Result<Vec<u8>> {
    image(&build::test_firmware()?)
}

/// The image with this program.
fn image(program: &[u8]) -> anyhow::Result<Vec<u8>> {
    let nothing = section(RAW, b"not used");
    let image = [
        volume(DXE_LEN, DXE_CORE, &nothing)?,
        volume(PEI_LEN, PEI_CORE, &nothing)?,
        sec(program)?,
    ];
    Ok(image.concat())
}

/// The volume with the program, which is entered at its first byte.
fn sec(program: &[u8]) -> anyhow::Result<Vec<u8>> {
    const HEADERS: usize = VOLUME_HEADER + FILE_HEADER + SECTION_HEADER;
    /// Offset of the PE header, and that of the entry point in it.
    const PE: usize = 0x40;
    const ENTRY: usize = PE + 0x28;
    let mut pe = vec![0; PROGRAM_AT - HEADERS];
    let entry = u32::try_from(pe.len())?;
    pe[..2].copy_from_slice(b"MZ");
    pe[0x3c] = PE as u8;
    pe[PE..PE + 4].copy_from_slice(b"PE\0\0");
    // x86-64, and the format of 64-bit programs.
    pe[PE + 4..PE + 6].copy_from_slice(&0x8664_u16.to_le_bytes());
    pe[PE + 24..PE + 26].copy_from_slice(&0x20b_u16.to_le_bytes());
    pe[ENTRY..ENTRY + 4].copy_from_slice(&entry.to_le_bytes());
    pe.extend(program);
    let mut volume = volume(SEC_LEN, SEC_CORE, &section(PE32, &pe))?;
    // The reset vector, which is not used: it jumps to itself.
    volume[SEC_LEN - 16..].fill(0x90);
    volume[SEC_LEN - 16..SEC_LEN - 14].copy_from_slice(&[0xeb, 0xfe]);
    Ok(volume)
}

/// A volume of `len` bytes with one file.
fn volume(len: usize, kind: u8, content: &[u8]) -> anyhow::Result<Vec<u8>> {
    const BLOCK: u32 = 0x1000;
    let file_len = FILE_HEADER + content.len();
    let end = VOLUME_HEADER + file_len;
    // Keeps the reset vector clear.
    anyhow::ensure!(
        end + 16 <= len,
        "the test firmware has {end:#x} bytes, and its volume {len:#x}"
    );
    let mut volume = vec![0xff; len];
    let mut put = |at: usize, bytes: &[u8]| volume[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0; VOLUME_HEADER]);
    put(16, &FILE_SYSTEM);
    put(32, &(len as u64).to_le_bytes());
    put(40, b"_FVH");
    put(44, &0x4_feff_u32.to_le_bytes());
    put(48, &(VOLUME_HEADER as u16).to_le_bytes());
    put(55, &[2]);
    put(56, &u32::try_from(len / BLOCK as usize)?.to_le_bytes());
    put(60, &BLOCK.to_le_bytes());
    put(VOLUME_HEADER, &[kind; 16]);
    put(VOLUME_HEADER + 16, &[0, 0, kind, 0]);
    put(
        VOLUME_HEADER + 20,
        &u32::try_from(file_len)?.to_le_bytes()[..3],
    );
    put(VOLUME_HEADER + 23, &[0xf8]);
    put(VOLUME_HEADER + FILE_HEADER, content);
    let sum = volume[..VOLUME_HEADER]
        .chunks_exact(2)
        .fold(0_u16, |sum, word| {
            sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
        });
    volume[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    Ok(volume)
}

fn section(kind: u8, content: &[u8]) -> Vec<u8> {
    let len = (SECTION_HEADER + content.len()) as u32;
    let mut section = len.to_le_bytes().to_vec();
    section[3] = kind;
    section.extend(content);
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use ovmf_image::FirmwareKind;

    #[test]
    fn the_vmm_takes_it_for_the_firmware_of_a_generation_2_vm() {
        let program = [0x90, 0xf4, 0xeb, 0xfd];
        let image = image(&program).unwrap();
        assert_eq!(image.len(), 6 << 20);
        let sec = 0x5e_0000..0x60_0000;
        let expected = FirmwareKind::Msvm { sec: sec.clone() };
        assert_eq!(FirmwareKind::recognize(&image), Ok(expected));
        let entry = ovmf_image::sec_entry(&image, sec).unwrap();
        assert_eq!(entry, 0x5e_1000);
        assert_eq!(image[entry..entry + 4], program);
    }

    #[test]
    fn a_program_that_is_too_long_is_refused() {
        assert!(image(&vec![0; SEC_LEN - PROGRAM_AT - 16]).is_ok());
        assert!(image(&vec![0; SEC_LEN - PROGRAM_AT - 15]).is_err());
    }
}
