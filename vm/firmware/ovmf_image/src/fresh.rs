//! Making a variable store without variables, as an OVMF build would have it in its template.

use crate::variables::AUTHENTICATED_STORE;
use crate::variables::FORMATTED;
use crate::variables::HEALTHY;
use crate::variables::VOLUME_GUID;
use crate::volume::checksum;

const BLOCK: usize = 0x1000;
const VOLUME_HEADER: usize = 0x48;
/// Erase polarity 1 and what the volume can do, as in every build.
const ATTRIBUTES: u32 = 0x0004_feff;
const REVISION: u8 = 2;

/// The header of an empty fault-tolerant working block of 4 KiB (edk2's `FaultTolerantWrite.h`): its GUID
/// 9e58292b-7c68-497d-a0ce-6500fd9f1b95, a CRC-32 of the header, the state "valid", and the size of the queue.
const WORKING_BLOCK: [u8; 32] = [
    0x2b, 0x29, 0x58, 0x9e, 0x68, 0x7c, 0x7d, 0x49, 0xa0, 0xce, 0x65, 0x00, 0xfd, 0x9f, 0x1b,
    0x95, //
    0x2c, 0xaf, 0x2c, 0x64, 0xfe, 0xff, 0xff, 0xff, //
    0xe0, 0x0f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// The sizes of variable stores whose layout is known: of builds for 1 and 2 MiB, and for 4 MiB.
const KNOWN: [u64; 2] = [0x2_0000, 0x8_4000];

/// A formatted store of `len` bytes ([`Ovmf::variables_len`](crate::Ovmf::variables_len)) without variables; `None` if no
/// known build has a store of this size.
///
/// The second half is the spare area. Variables, a block of event log and the working block fill the first half.
pub fn fresh_variables(len: u64) -> Option<Vec<u8>> {
    if !KNOWN.contains(&len) {
        return None;
    }
    let len = len as usize;
    let variables = len / 2 - 2 * BLOCK;
    let mut bytes = vec![0xff; len];
    let mut put =
        |at: usize, content: &[u8]| bytes[at..at + content.len()].copy_from_slice(content);
    put(0, &[0; VOLUME_HEADER]);
    put(16, &VOLUME_GUID);
    put(32, &(len as u64).to_le_bytes());
    put(40, b"_FVH");
    put(44, &ATTRIBUTES.to_le_bytes());
    put(48, &(VOLUME_HEADER as u16).to_le_bytes());
    put(55, &[REVISION]);
    // The block map: one entry, and a zero one.
    put(56, &((len / BLOCK) as u32).to_le_bytes());
    put(60, &(BLOCK as u32).to_le_bytes());
    put(VOLUME_HEADER, &AUTHENTICATED_STORE);
    put(
        VOLUME_HEADER + 16,
        &((variables - VOLUME_HEADER) as u32).to_le_bytes(),
    );
    put(VOLUME_HEADER + 20, &[FORMATTED, HEALTHY, 0, 0, 0, 0, 0, 0]);
    put(variables + BLOCK, &WORKING_BLOCK);
    let sum = checksum(&bytes[..VOLUME_HEADER]);
    bytes[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VariablesState;
    use crate::check_variables;
    use sha2::Digest;
    use sha2::Sha256;

    #[test]
    fn a_fresh_store_is_that_of_the_template() {
        // SHA-256 of Debian's OVMF_VARS.fd and OVMF_VARS_4M.fd (2022.11-6+deb12u2; 2025.02 has the same of 4 MiB).
        for (len, template) in [
            (
                0x2_0000,
                "6ed987af3a3c155be71665f510eae3e007eda9b8b94afd59d45e91c4a11565cc",
            ),
            (
                0x8_4000,
                "5d2ac383371b408398accee7ec27c8c09ea5b74a0de0ceea6513388b15be5d1e",
            ),
        ] {
            let bytes = fresh_variables(len).unwrap();
            assert_eq!(check_variables(&bytes, len), Ok(VariablesState::Intact));
            let digest: String = Sha256::digest(&bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(digest, template);
        }
        for len in [0, 0x1000, 0x4_0000, u64::MAX] {
            assert_eq!(fresh_variables(len), None);
        }
    }
}
