//! The driver of the fuzz target: examining any bytes ends, and the result is consistent.

use crate::FirmwareKind;
use crate::Ovmf;
use crate::check_variables;
use crate::constructed;
use crate::constructed::Smm;
use crate::runs_without_smm;
use crate::sec_entry;
use std::sync::LazyLock;

static CODE: LazyLock<Vec<u8>> = LazyLock::new(|| constructed::code(1 << 20, Smm::WithoutPei));
static COMBINED: LazyLock<Vec<u8>> = LazyLock::new(|| constructed::combined(1 << 20, Smm::Peim));
static VARIABLES: LazyLock<Vec<u8>> = LazyLock::new(|| constructed::variables(0x2_0000));

/// The length of the MSVM image that is examined: that of the volumes with PEI and SEC phase.
const MSVM_LEN: usize = 0x2_2000;

static MSVM: LazyLock<Vec<u8>> = LazyLock::new(|| constructed::small_msvm(MSVM_LEN));

/// Examines `data`, and valid images with one byte changed for every four bytes of it.
pub fn images(data: &[u8]) {
    examine(data);
    for image in [&CODE, &COMBINED, &VARIABLES, &MSVM] {
        examine(&changed(image, data));
    }
}

fn changed(image: &[u8], data: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    // Headers of volumes and files, and the compressed data.
    let bases = [
        0,
        0x48,
        0x2_0000,
        0x2_0048,
        constructed::lzma_header(&image).unwrap_or(0),
        image.len().saturating_sub(0x3_4000),
        image.len().saturating_sub(0x2_0000),
        image.len().saturating_sub(0x2_0000) + 0x60,
    ];
    for change in data.chunks_exact(4) {
        let base = bases[usize::from(change[0]) % bases.len()];
        let at = base + usize::from(change[1]) + usize::from(change[0] >> 6) * 256;
        if let Some(byte) = image.get_mut(at) {
            *byte = change[2];
        }
        // Otherwise the wrong checksum would end the examination.
        if change[3] & 1 == 0 && base.is_multiple_of(0x1000) && base + 0x48 <= image.len() {
            constructed::fix_checksum(&mut image[base..]);
        }
    }
    image
}

fn examine(image: &[u8]) {
    let _ = runs_without_smm(image);
    let _ = check_variables(image, image.len() as u64);
    match FirmwareKind::recognize(image) {
        Ok(FirmwareKind::Ovmf(ovmf)) => check(&ovmf, image),
        Ok(FirmwareKind::Msvm { sec }) => {
            if let Ok(entry) = sec_entry(image, sec.clone()) {
                assert!(sec.contains(&entry), "the entry is in the volume");
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

fn check(ovmf: &Ovmf, image: &[u8]) {
    let code_len = ovmf.code.range.len() as u64;
    assert_eq!(ovmf.code.range.end, image.len());
    assert_eq!(ovmf.code.gpa + code_len, 1 << 32);
    assert_eq!(ovmf.variables_gpa + ovmf.variables_len, ovmf.code.gpa);
    assert!(
        ovmf.code.gpa.is_multiple_of(4096),
        "the code begins at a page"
    );
    assert!(ovmf.variables_gpa >= (1 << 32) - crate::MAX_SIZE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_bytes_can_be_examined(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            images(&data);
        }
    }
}
