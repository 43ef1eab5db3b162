use super::*;
use crate::constructed;
use crate::constructed::Smm;

fn ovmf(bytes: &[u8]) -> Ovmf {
    match FirmwareKind::recognize(bytes) {
        Ok(FirmwareKind::Ovmf(ovmf)) => ovmf,
        other => panic!("{other:?}"),
    }
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> ImageError {
    let mut image = constructed::code(2 << 20, Smm::Without);
    change(&mut image);
    FirmwareKind::recognize(&image).unwrap_err()
}

#[test]
fn builds_of_all_sizes_have_their_addresses() {
    for (flash_len, variables_len, variables_gpa, code_gpa) in [
        (1 << 20, 0x2_0000, 0xfff0_0000, 0xfff2_0000),
        (2 << 20, 0x2_0000, 0xffe0_0000, 0xffe2_0000),
        (4 << 20, 0x8_4000, 0xffc0_0000, 0xffc8_4000),
    ] {
        let code = constructed::code(flash_len, Smm::Without);
        let found = ovmf(&code);
        assert_eq!(found.code.range, 0..code.len());
        assert_eq!(found.code.gpa, code_gpa);
        assert_eq!(found.variables_gpa, variables_gpa);
        assert_eq!(found.variables_len, variables_len);
        assert_eq!(found.template, None);

        let both = constructed::combined(flash_len, Smm::Without);
        let found = ovmf(&both);
        assert_eq!(found.code.range, variables_len as usize..flash_len);
        assert_eq!(found.code.gpa, code_gpa);
        let template = found.template.unwrap();
        assert_eq!(template.gpa, variables_gpa);
        assert_eq!(template.range, 0..variables_len as usize);
    }
}

#[test]
fn msvm_is_recognized() {
    let image = constructed::msvm();
    assert_eq!(image.len(), 6 << 20);
    assert_eq!(
        FirmwareKind::recognize(&image),
        Ok(FirmwareKind::Msvm {
            sec: 0x5e_0000..0x60_0000
        })
    );
}

#[test]
fn msvm_may_be_followed_by_empty_pages() {
    let mut image = constructed::msvm();
    image.extend(vec![0xff; 2 << 20]);
    assert_eq!(
        FirmwareKind::recognize(&image),
        Ok(FirmwareKind::Msvm {
            sec: 0x5e_0000..0x60_0000
        })
    );
}

#[test]
fn other_content_is_refused_with_the_reason() {
    let recognize = |bytes: &[u8]| FirmwareKind::recognize(bytes).unwrap_err();
    assert_eq!(recognize(&[]), ImageError::Empty);
    assert_eq!(recognize(&[0; 4096]), ImageError::Blank(0));
    assert_eq!(recognize(&[0xff; 4096]), ImageError::Blank(0xff));
    assert_eq!(recognize(&[1; 100]), ImageError::Size { len: 100 });
    assert_eq!(recognize(b"QFI\xfb....."), ImageError::Qcow2);
    let mut noise = [0x5a; 8192];
    noise[0] = 0;
    assert_eq!(recognize(&noise), ImageError::NoVolume);
    assert_eq!(
        recognize(&constructed::variables(0x8_4000)),
        ImageError::OnlyVariables
    );
    let len = MAX_SIZE + 4096;
    let large = vec![0; len as usize];
    assert_eq!(recognize(&large), ImageError::TooLarge { len });
    let arm = |word: u32| changed(|image| image[..4].copy_from_slice(&word.to_le_bytes()));
    assert_eq!(arm(0x1400_0400), ImageError::Architecture("64-bit Arm"));
    assert_eq!(arm(0xea00_0400), ImageError::Architecture("32-bit Arm"));
}

#[test]
fn errors_have_the_offset_of_the_damage() {
    const SEC: usize = 0x1a_c000;
    assert_eq!(
        changed(|image| image[44] ^= 1),
        ImageError::Volume {
            offset: 0,
            reason: "its header's checksum is wrong"
        }
    );
    assert_eq!(
        changed(|image| image[SEC + 40] = 0),
        ImageError::Volume {
            offset: SEC,
            reason: "it does not start with a volume header"
        }
    );
    assert_eq!(
        changed(|image| image.truncate(0x10_0000)),
        ImageError::Truncated {
            offset: 0,
            volume_len: SEC as u64,
            available: 0x10_0000
        }
    );
    assert_eq!(
        changed(|image| image.truncate(SEC + 0x1000)),
        ImageError::Truncated {
            offset: SEC,
            volume_len: 0x3_4000,
            available: 0x1000
        }
    );
    assert_eq!(
        changed(|image| image.truncate(SEC)),
        ImageError::NoResetVector
    );
    assert_eq!(
        changed(|image| image.extend([0; 4096])),
        ImageError::NoVolumeAtEnd { offset: 0x1e_0000 }
    );
    assert_eq!(
        changed(|image| {
            let len = image.len();
            image[len - 16..].fill(0);
        }),
        ImageError::NoResetVector
    );
    // The type of the second file in the last volume.
    assert_eq!(
        changed(|image| image[SEC + 0x48 + 24 + 18] = 5),
        ImageError::NoSec
    );
}
