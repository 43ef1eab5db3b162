//! Signature lists: the content of PK, KEK, db, dbx and similar variables.

use uuid::Uuid;

/// The signature list at this offset cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature list at byte {0} is malformed")]
pub struct SignatureListError(pub usize);

/// EFI_SIGNATURE_LIST (UEFI specification, section 32.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureList {
    /// The type of the signatures, such as [`CERT_X509`](crate::guid::CERT_X509).
    pub kind: Uuid,
    /// The header before the signatures; empty for all types in use.
    pub header: Vec<u8>,
    /// The signatures, all of the same length.
    pub signatures: Vec<SignatureData>,
}

/// EFI_SIGNATURE_DATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureData {
    /// The agent that added the signature.
    pub owner: Uuid,
    /// A digest or certificate.
    pub data: Vec<u8>,
}

impl SignatureList {
    /// Encodes the list. The signatures must have one length.
    pub fn encode(&self) -> Vec<u8> {
        let size = OWNER_LEN + self.signatures.first().map_or(0, |first| first.data.len());
        let len = HEADER_LEN + self.header.len() + size * self.signatures.len();
        let mut bytes = Vec::with_capacity(len);
        bytes.extend(self.kind.to_bytes_le());
        for word in [len, self.header.len(), size] {
            // A list that does not fit a variable is refused when the variable is set.
            bytes.extend(u32::try_from(word).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes.extend(&self.header);
        for signature in &self.signatures {
            bytes.extend(signature.owner.to_bytes_le());
            bytes.extend(&signature.data);
        }
        bytes
    }
}

const HEADER_LEN: usize = 28;
const OWNER_LEN: usize = 16;

/// Decodes all signature lists in a variable, of known and unknown types.
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
        kind: Uuid::from_bytes_le(*kind),
        header: header.to_vec(),
        signatures: signatures
            .chunks_exact(size)
            .filter_map(|signature| {
                let (owner, data) = signature.split_first_chunk::<OWNER_LEN>()?;
                Some(SignatureData {
                    owner: Uuid::from_bytes_le(*owner),
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
    use crate::guid::CERT_SHA256;
    use crate::guid::CERT_X509;
    use proptest::prelude::*;

    fn list(kind: Uuid, size: u32, signatures: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_bytes_le().to_vec();
        bytes.extend((28 + signatures.len() as u32).to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(signatures);
        bytes
    }

    #[test]
    fn lists_of_known_and_unknown_types_are_decoded() {
        let unknown = Uuid::from_u128(5);
        let bytes = [
            list(CERT_SHA256, 48, &[7; 96]),
            list(CERT_X509, 20, &[8; 20]),
            list(unknown, 17, &[9; 17]),
            list(CERT_X509, 20, &[]),
        ]
        .concat();
        let lists = signature_lists(&bytes).unwrap();
        let shape: Vec<_> = lists.iter().map(|l| (l.kind, l.signatures.len())).collect();
        assert_eq!(
            shape,
            [
                (CERT_SHA256, 2),
                (CERT_X509, 1),
                (unknown, 1),
                (CERT_X509, 0)
            ]
        );
        assert_eq!(lists[0].signatures[1].data, [7; 32]);
        let encoded: Vec<_> = lists[..3].iter().flat_map(SignatureList::encode).collect();
        assert_eq!(encoded, bytes[..encoded.len()]);
    }

    #[test]
    fn malformed_lists_are_refused() {
        let good = list(CERT_SHA256, 48, &[7; 48]);
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
