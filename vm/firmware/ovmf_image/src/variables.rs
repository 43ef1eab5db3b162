//! OVMF's variable store.

use crate::error::VariablesError;
use crate::volume::Guid;
use crate::volume::Volume;
use crate::volume::VolumeError;
use crate::volume::array_at;
use crate::volume::u32_at;

/// Volumes that hold variables: fff12b8d-7696-4c8b-a985-2747075b4f50.
pub(crate) const VOLUME_GUID: Guid = [
    0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
];

/// Variables with time stamps and signatures: aaf32c78-947b-439a-a180-2e144ec37792.
const AUTHENTICATED_STORE: Guid = [
    0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92,
];

/// Variables without: ddcf3616-3275-4164-98b6-fe85707ffe7d. Builds without Secure Boot used to have these.
const PLAIN_STORE: Guid = [
    0x16, 0x36, 0xcf, 0xdd, 0x75, 0x32, 0x64, 0x41, 0x98, 0xb6, 0xfe, 0x85, 0x70, 0x7f, 0xfe, 0x7d,
];

const STORE_HEADER: usize = 28;
const FORMATTED: u8 = 0x5a;
const HEALTHY: u8 = 0xfe;

/// How a variable store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariablesState {
    /// As it should be.
    Intact,
    /// Its beginning is damaged, and there is a whole copy of it in its second half: the VM ended while the
    /// firmware was rewriting it. The firmware completes that.
    Interrupted,
}

/// Looks at the headers of a variable store that must have `expected_len` bytes
/// ([`Ovmf::variables_len`](crate::Ovmf::variables_len)). The variables themselves are the firmware's business.
pub fn check_variables(bytes: &[u8], expected_len: u64) -> Result<VariablesState, VariablesError> {
    if bytes.len() as u64 != expected_len {
        return Err(VariablesError::Size {
            len: bytes.len() as u64,
            expected: expected_len,
        });
    }
    if let Some(first) = bytes
        .first()
        .filter(|first| bytes.iter().all(|b| b == *first))
    {
        return Err(VariablesError::Blank(*first));
    }
    let error = match check_headers(bytes, expected_len) {
        Ok(()) => return Ok(VariablesState::Intact),
        Err(error) => error,
    };
    // The spare area is the second half. While the first is rewritten, the new content is there.
    let spare = &bytes[bytes.len() / 2..];
    match check_headers(spare, expected_len) {
        Ok(()) => Ok(VariablesState::Interrupted),
        Err(_) => Err(error),
    }
}

/// The headers are at the start of `bytes`; the volume as such may be longer.
fn check_headers(bytes: &[u8], volume_len: u64) -> Result<(), VariablesError> {
    let damaged = VariablesError::Volume;
    let header_len = match Volume::parse(bytes) {
        Ok(volume) => {
            if volume.guid() != VOLUME_GUID {
                return Err(VariablesError::OtherVolume);
            }
            if volume.bytes.len() as u64 != volume_len {
                return Err(damaged("it is not as long as the file"));
            }
            if volume.mapped_len() != Some(volume_len) {
                return Err(damaged("its block map does not add up"));
            }
            volume.header_len()
        }
        Err(VolumeError::Truncated { len }) if len == volume_len => {
            // A copy of the start of one.
            let header_len = crate::volume::u16_at(bytes, 48).map_or(0, usize::from);
            if array_at(bytes, 16) != Some(VOLUME_GUID) {
                return Err(VariablesError::OtherVolume);
            }
            header_len
        }
        Err(VolumeError::NotAVolume) => return Err(VariablesError::NoVolume),
        Err(VolumeError::Truncated { .. }) => return Err(damaged("it is longer than the file")),
        Err(VolumeError::Damaged(reason)) => return Err(damaged(reason)),
    };
    let cut = VariablesError::Store("it is cut off");
    let store = bytes.get(header_len..).ok_or(cut.clone())?;
    let guid: Guid = array_at(store, 0).ok_or(cut.clone())?;
    if guid != AUTHENTICATED_STORE && guid != PLAIN_STORE {
        return Err(VariablesError::Store("its identifier is unknown"));
    }
    let len = u32_at(store, 16).ok_or(cut.clone())? as usize;
    if len < STORE_HEADER || header_len + len > volume_len as usize {
        return Err(VariablesError::Store("it has an impossible length"));
    }
    let [format, state] = array_at(store, 20).ok_or(cut)?;
    if format != FORMATTED {
        return Err(VariablesError::Store("it says that it is not formatted"));
    }
    if state != HEALTHY {
        return Err(VariablesError::Store("it says that it is not healthy"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constructed;

    const LEN: u64 = 0x8_4000;

    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<VariablesState, VariablesError> {
        let mut bytes = constructed::variables(LEN as usize);
        change(&mut bytes);
        check_variables(&bytes, LEN)
    }

    /// Keeps the header's checksum right.
    fn with_header(at: usize, value: u8) -> Result<VariablesState, VariablesError> {
        changed(|bytes| {
            bytes[at] = value;
            constructed::fix_checksum(bytes);
        })
    }

    #[test]
    fn templates_of_both_sizes_are_intact() {
        for len in [0x2_0000, 0x8_4000] {
            let bytes = constructed::variables(len);
            let state = check_variables(&bytes, len as u64);
            assert_eq!(state, Ok(VariablesState::Intact));
        }
    }

    #[test]
    fn the_store_of_another_build_is_refused_by_its_size() {
        let error = check_variables(&constructed::variables(0x2_0000), LEN).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it has 131072 bytes (a 1 MiB or 2 MiB build's), and the firmware's variable store has 540672 \
             (a 4 MiB build's)"
        );
        assert!(check_variables(&[], LEN).is_err());
        assert!(check_variables(&[], 0).is_err());
    }

    #[test]
    fn damage_is_named() {
        let damaged = |reason| Err(VariablesError::Volume(reason));
        let store = |reason| Err(VariablesError::Store(reason));
        assert_eq!(changed(|b| b.fill(0)), Err(VariablesError::Blank(0)));
        assert_eq!(changed(|b| b.fill(0xff)), Err(VariablesError::Blank(0xff)));
        assert_eq!(changed(|b| b[40] = 0), Err(VariablesError::NoVolume));
        assert_eq!(
            changed(|b| b[44] ^= 1),
            damaged("its header's checksum is wrong")
        );
        assert_eq!(with_header(16, 1), Err(VariablesError::OtherVolume));
        assert_eq!(
            with_header(33, 0x30),
            damaged("it is not as long as the file")
        );
        assert_eq!(with_header(34, 0x18), damaged("it is longer than the file"));
        assert_eq!(with_header(56, 1), damaged("its block map does not add up"));
        assert_eq!(
            changed(|b| b[0x48] ^= 1),
            store("its identifier is unknown")
        );
        assert_eq!(
            changed(|b| b[0x5b] = 0xff),
            store("it has an impossible length")
        );
        assert_eq!(
            changed(|b| b[0x5c] = 0xff),
            store("it says that it is not formatted")
        );
        assert_eq!(
            changed(|b| b[0x5d] = 0xff),
            store("it says that it is not healthy")
        );
    }

    #[test]
    fn a_copy_in_the_spare_area_makes_up_for_an_erased_start() {
        let result = changed(|bytes| {
            bytes.copy_within(..0x1000, LEN as usize / 2);
            bytes[..0x1000].fill(0xff);
        });
        assert_eq!(result, Ok(VariablesState::Interrupted));
        let result = changed(|bytes| {
            bytes.copy_within(..0x1000, LEN as usize / 2);
            bytes[LEN as usize / 2 + 60] ^= 1;
            bytes[..0x1000].fill(0xff);
        });
        assert_eq!(result, Err(VariablesError::NoVolume));
    }
}
