//! Checking OVMF's variable store.

use crate::error::VariablesError;
use crate::volume::Guid;
use crate::volume::Volume;
use crate::volume::VolumeError;
use crate::volume::array_at;
use crate::volume::repeated_byte;
use crate::volume::u16_at;
use crate::volume::u32_at;
use uuid::uuid;

/// Volumes with variables.
pub(crate) const VOLUME_GUID: Guid = uuid!("fff12b8d-7696-4c8b-a985-2747075b4f50").to_bytes_le();

/// Variables with time stamps and signatures.
pub(crate) const AUTHENTICATED_STORE: Guid =
    uuid!("aaf32c78-947b-439a-a180-2e144ec37792").to_bytes_le();

/// Variables without them, as in older builds without Secure Boot.
const PLAIN_STORE: Guid = uuid!("ddcf3616-3275-4164-98b6-fe85707ffe7d").to_bytes_le();

const STORE_HEADER: usize = 28;
pub(crate) const FORMATTED: u8 = 0x5a;
pub(crate) const HEALTHY: u8 = 0xfe;

/// The state of a variable store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariablesState {
    /// Its headers are valid.
    Intact,
    /// The start is damaged, but the spare area in the second half has a complete copy: the VM ended while the
    /// firmware was rewriting the store. The firmware finishes that at the next boot.
    Interrupted,
}

/// Checks the headers of a variable store that must have `expected_len` bytes
/// ([`Ovmf::variables_len`](crate::Ovmf::variables_len)). The variables are left to the firmware.
pub fn check_variables(bytes: &[u8], expected_len: u64) -> Result<VariablesState, VariablesError> {
    if bytes.len() as u64 != expected_len {
        return Err(VariablesError::Size {
            len: bytes.len() as u64,
            expected: expected_len,
        });
    }
    if let Some(byte) = repeated_byte(bytes) {
        return Err(VariablesError::Blank(byte));
    }
    let error = match check_headers(bytes, expected_len) {
        Ok(()) => return Ok(VariablesState::Intact),
        Err(error) => error,
    };
    // The second half is the spare area. It has the new content while the first half is rewritten.
    let spare = &bytes[bytes.len() / 2..];
    match check_headers(spare, expected_len) {
        Ok(()) => Ok(VariablesState::Interrupted),
        Err(_) => Err(error),
    }
}

/// Checks the headers at the start of `bytes`. The volume may be longer than `bytes`.
fn check_headers(bytes: &[u8], volume_len: u64) -> Result<(), VariablesError> {
    let damaged = VariablesError::Volume;
    let header_len = match Volume::parse(bytes) {
        Ok(volume) => {
            if volume.guid() != VOLUME_GUID {
                return Err(VariablesError::OtherVolume);
            }
            if volume.bytes.len() as u64 != volume_len {
                return Err(damaged("its length is not that of the file"));
            }
            if volume.mapped_len() != Some(volume_len) {
                return Err(damaged("its block map has another length"));
            }
            volume.header_len()
        }
        Err(VolumeError::Truncated { len }) if len == volume_len => {
            // A copy of the start of a volume.
            let header_len = u16_at(bytes, 48).map_or(0, usize::from);
            if array_at(bytes, 16) != Some(VOLUME_GUID) {
                return Err(VariablesError::OtherVolume);
            }
            header_len
        }
        Err(VolumeError::NotAVolume) => return Err(VariablesError::NoVolume),
        Err(VolumeError::Truncated { .. }) => return Err(damaged("it is longer than the file")),
        Err(VolumeError::Damaged(reason)) => return Err(damaged(reason)),
    };
    let cut = VariablesError::Store("it is truncated");
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
        return Err(VariablesError::Store("it is marked as not formatted"));
    }
    if state != HEALTHY {
        return Err(VariablesError::Store("it is marked as not healthy"));
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

    /// With the checksum of the header corrected.
    fn with_header(at: usize, value: u8) -> Result<VariablesState, VariablesError> {
        changed(|bytes| {
            bytes[at] = value;
            constructed::fix_checksum(bytes);
        })
    }

    #[test]
    fn templates_of_both_sizes_are_valid() {
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
    fn errors_name_the_damaged_field() {
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
            damaged("its length is not that of the file")
        );
        assert_eq!(with_header(34, 0x18), damaged("it is longer than the file"));
        assert_eq!(
            with_header(56, 1),
            damaged("its block map has another length")
        );
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
            store("it is marked as not formatted")
        );
        assert_eq!(
            changed(|b| b[0x5d] = 0xff),
            store("it is marked as not healthy")
        );
    }

    #[test]
    fn a_copy_in_the_spare_area_replaces_an_erased_start() {
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
