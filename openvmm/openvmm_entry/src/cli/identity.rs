//! The VM's identity.

use super::Options;
use super::config::Errors;
use sha2::Digest as _;
use sha2::Sha256;
use std::path::Path;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

impl Options {
    /// The value of `--uuid`, or else a UUID derived from the VM's files: the same at every start with the same files.
    pub(super) fn identity(&self, errors: &mut Errors, vmgs: Option<&Path>) -> [u8; 16] {
        if let Some(text) = &self.uuid {
            return errors.take("--uuid", parse_uuid(text), [0; 16]);
        }
        let mut hash = Sha256::new();
        hash.update("openvmm");
        for disk in &self.disk {
            hash.update(disk);
        }
        let igvm = self.igvm_file();
        let file = vmgs.or(self.kernel.as_deref()).or(igvm.as_deref());
        if let Some(path) = file {
            // A relative path names another file in another directory.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            hash.update(path.as_os_str().as_encoded_bytes());
        }
        name_based(hash.finalize().into())
    }
}

/// A UUID of version 8 (RFC 9562): derived in a way of our own.
fn name_based(digest: [u8; 32]) -> [u8; 16] {
    let start = std::array::from_fn(|n| digest[n]);
    Uuid::new_v8(start).into_bytes()
}

/// Parses the hyphenated form only.
fn parse_uuid(text: &str) -> Result<[u8; 16], String> {
    let uuid: Result<Hyphenated, _> = text.parse();
    uuid.map(|uuid| uuid.into_uuid().into_bytes()).map_err(|_| {
        format!("'{text}' is not a UUID (example: 6f1c9a1e-0d2b-4f5a-8c3d-9e7b5a312480)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hyphenated_uuids_are_parsed() {
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
    fn derived_uuids_have_version_8() {
        let uuid = name_based([0xff; 32]);
        assert_eq!((uuid[6], uuid[8]), (0x8f, 0xbf));
    }
}
