//! Signature databases: PK, KEK, db, dbx and their like.

use crate::guid::Guid;

/// Why bytes are no signature lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature list at byte {0} is malformed")]
pub struct SignatureListError(pub usize);

/// EFI_SIGNATURE_LIST (UEFI specification, section 32.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureList {
    /// What kind of signatures these are.
    pub kind: Guid,
    /// What precedes the signatures; empty for all kinds in use.
    pub header: Vec<u8>,
    /// The signatures, all of one length.
    pub signatures: Vec<SignatureData>,
}

/// EFI_SIGNATURE_DATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureData {
    /// Who added it.
    pub owner: Guid,
    /// A digest or certificate.
    pub data: Vec<u8>,
}

const HEADER_LEN: usize = 28;
const OWNER_LEN: usize = 16;

/// The lists in a variable, of known kinds and others.
pub fn signature_lists(bytes: &[u8]) -> Result<Vec<SignatureList>, SignatureListError> {
    let mut lists = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (list, len) = decode_list(rest).ok_or(SignatureListError(at))?;
        lists.push(list);
        at += len;
    }
    Ok(lists)
}

fn decode_list(bytes: &[u8]) -> Option<(SignatureList, usize)> {
    let (kind, _) = bytes.split_first_chunk::<16>()?;
    let word = |at: usize| {
        let word = bytes.get(at..)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*word)).ok()
    };
    let (len, header_len, size) = (word(16)?, word(20)?, word(24)?);
    let body = bytes.get(..len)?.get(HEADER_LEN..)?;
    let (header, signatures) = body.split_at_checked(header_len)?;
    if size < OWNER_LEN || !signatures.len().is_multiple_of(size) {
        return None;
    }
    let list = SignatureList {
        kind: Guid::from_efi(*kind),
        header: header.to_vec(),
        signatures: signatures
            .chunks_exact(size)
            .filter_map(|signature| {
                let (owner, data) = signature.split_first_chunk::<OWNER_LEN>()?;
                Some(SignatureData {
                    owner: Guid::from_efi(*owner),
                    data: data.to_vec(),
                })
            })
            .collect(),
    };
    Some((list, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(kind: Guid, size: u32, signatures: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_efi().to_vec();
        bytes.extend((28 + signatures.len() as u32).to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(signatures);
        bytes
    }

    #[test]
    fn lists_of_all_kinds_are_kept() {
        let unknown = Guid::new(5);
        let bytes = [
            list(Guid::CERT_SHA256, 48, &[7; 96]),
            list(Guid::CERT_X509, 20, &[8; 20]),
            list(unknown, 17, &[9; 17]),
            list(Guid::CERT_X509, 20, &[]),
        ]
        .concat();
        let lists = signature_lists(&bytes).unwrap();
        let shape: Vec<_> = lists.iter().map(|l| (l.kind, l.signatures.len())).collect();
        assert_eq!(
            shape,
            [
                (Guid::CERT_SHA256, 2),
                (Guid::CERT_X509, 1),
                (unknown, 1),
                (Guid::CERT_X509, 0)
            ]
        );
        assert_eq!(lists[0].signatures[1].data, [7; 32]);
    }

    #[test]
    fn faults_are_errors() {
        let good = list(Guid::CERT_SHA256, 48, &[7; 48]);
        assert!(signature_lists(&good).is_ok());
        for (at, value) in [
            (16, 27),
            (16, 77),
            (20, 1),
            (20, 255),
            (24, 15),
            (24, 0),
            (24, 47),
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(
                signature_lists(&bytes),
                Err(SignatureListError(0)),
                "{at} {value}"
            );
        }
        assert_eq!(
            signature_lists(&[good, vec![0; 5]].concat()),
            Err(SignatureListError(76))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = signature_lists(&bytes);
        }
    }
}
