//! The VM's identity.

use super::Options;
use super::config::Errors;
use sha2::Digest as _;
use sha2::Sha256;

impl Options {
    /// The identity that was given; else one that is the same whenever the VM is started with the same files.
    pub(super) fn identity(&self, errors: &mut Errors) -> [u8; 16] {
        if let Some(text) = &self.uuid {
            return errors.take("--uuid", parse_uuid(text), [0; 16]);
        }
        let mut hash = Sha256::new();
        hash.update("openvmm");
        for disk in &self.disk {
            hash.update(disk);
        }
        let file = self.vmgs.as_ref().or(self.kernel.as_ref());
        if let Some(path) = file {
            // A name means another file elsewhere.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            hash.update(path.as_os_str().as_encoded_bytes());
        }
        name_based(hash.finalize().into())
    }
}

/// A UUID of version 8 (RFC 9562, 5.8): whatever its maker likes.
fn name_based(digest: [u8; 32]) -> [u8; 16] {
    let mut uuid: [u8; 16] = std::array::from_fn(|n| digest[n]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

fn parse_uuid(text: &str) -> Result<[u8; 16], String> {
    let error = || format!("'{text}' is no UUID (example: 6f1c9a1e-0d2b-4f5a-8c3d-9e7b5a312480)");
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    if lengths != [8, 4, 4, 4, 12] || !text.is_ascii() {
        return Err(error());
    }
    let digits: String = text.split('-').collect();
    let mut uuid = [0; 16];
    for (byte, at) in uuid.iter_mut().zip((0..).step_by(2)) {
        let pair = &digits[at..at + 2];
        if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(error());
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
    }
    Ok(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_read_as_printed() {
        let uuid = parse_uuid("00112233-4455-6677-8899-aAbBcCdDeEfF").unwrap();
        assert_eq!(uuid[..6], [0, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(uuid[15], 0xff);
        for wrong in [
            "",
            "0",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeefg",
            "00112233445566778899aabbccddeeff",
            "+0112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert!(parse_uuid(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn derived_ones_are_marked_as_such() {
        let uuid = name_based([0xff; 32]);
        assert_eq!((uuid[6], uuid[8]), (0x8f, 0xbf));
    }
}
