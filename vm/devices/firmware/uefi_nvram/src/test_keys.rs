//! Keys, and signatures by them.

use rsa::Pkcs1v15Sign;
use rsa::PrivateKey;
use rsa::pkcs8::DecodePrivateKey as _;
use sha2::Digest as _;
use sha2::Sha256;
use uefi_nvram_storage::EfiTime;
use uefi_nvram_storage::SignatureData;
use uefi_nvram_storage::SignatureList;
use uefi_nvram_storage::VariableKey;
use uefi_specs::guid::CERT_TYPE_PKCS7;
use uefi_specs::guid::CERT_X509;
use uefi_specs::variable::AuthenticationHeader;
use uuid::Uuid;
use zerocopy::IntoBytes as _;

/// A key and its certificate.
pub(crate) struct TestKey {
    key: &'static [u8],
    pub certificate: &'static [u8],
}

pub(crate) const PK: TestKey = TestKey {
    key: include_bytes!("../testdata/pk.key.der"),
    certificate: include_bytes!("../testdata/pk.cert.der"),
};
pub(crate) const KEK: TestKey = TestKey {
    key: include_bytes!("../testdata/kek.key.der"),
    certificate: include_bytes!("../testdata/kek.cert.der"),
};
/// Certified by [`KEK`].
pub(crate) const LEAF: TestKey = TestKey {
    key: include_bytes!("../testdata/leaf.key.der"),
    certificate: include_bytes!("../testdata/leaf.cert.der"),
};
pub(crate) const STRANGER: TestKey = TestKey {
    key: include_bytes!("../testdata/stranger.key.der"),
    certificate: include_bytes!("../testdata/stranger.cert.der"),
};

impl TestKey {
    /// A signature list of the certificate.
    pub(crate) fn list(&self) -> Vec<u8> {
        let signature = SignatureData {
            owner: Uuid::from_u128(7),
            data: self.certificate.to_vec(),
        };
        let list = SignatureList {
            kind: CERT_X509,
            header: Vec::new(),
            signatures: vec![signature],
        };
        list.encode()
    }

    /// A SignedData of `content`, with the certificate.
    pub(crate) fn sign(&self, content: &[u8]) -> Vec<u8> {
        let key = PrivateKey::from_pkcs8_der(self.key).unwrap();
        let signature = key.sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(content));
        let sha256 = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
        let rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
        let data = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
        let algorithm = |oid: &[u8]| tlv(0x30, &[&tlv(6, &[oid]), &[5, 0]]);
        let version = [2, 1, 1];
        let signer = tlv(
            0x30,
            &[
                &version,
                &tlv(0x30, &[&tlv(0x30, &[]), &version]),
                &algorithm(&sha256),
                &algorithm(&rsa),
                &tlv(4, &[&signature.unwrap()]),
            ],
        );
        tlv(
            0x30,
            &[
                &version,
                &tlv(0x31, &[&algorithm(&sha256)]),
                &tlv(0x30, &[&tlv(6, &[&data])]),
                &tlv(0xa0, &[self.certificate]),
                &tlv(0x31, &[&signer]),
            ],
        )
    }

    /// The data of a call that sets `key` to `data`, signed at `time`.
    pub(crate) fn authenticated(
        &self,
        key: &VariableKey,
        attributes: u32,
        time: &EfiTime,
        data: &[u8],
    ) -> Vec<u8> {
        let name = key.name.as_bytes();
        let content = [
            &name[..name.len() - 2],
            &key.vendor.to_bytes_le(),
            &attributes.to_le_bytes(),
            time.as_bytes(),
            data,
        ];
        authenticated(time, &self.sign(&content.concat()), data)
    }
}

/// The data of a call with this signature.
pub(crate) fn authenticated(time: &EfiTime, signature: &[u8], data: &[u8]) -> Vec<u8> {
    let header = AuthenticationHeader {
        timestamp: *time,
        certificate_len: (24 + signature.len() as u32).into(),
        revision: AuthenticationHeader::REVISION.into(),
        certificate_type: AuthenticationHeader::CERTIFICATE_TYPE.into(),
        signature_type: CERT_TYPE_PKCS7.to_bytes_le(),
    };
    [header.as_bytes(), signature, data].concat()
}

/// A time in this year.
pub(crate) fn year(year: u16) -> EfiTime {
    EfiTime {
        year: year.into(),
        month: 1,
        day: 1,
        ..EfiTime::default()
    }
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let len = value.len();
    let len = match len {
        ..0x80 => vec![len as u8],
        0x80..0x100 => vec![0x81, len as u8],
        _ => vec![0x82, (len >> 8) as u8, len as u8],
    };
    [vec![tag], len, value].concat()
}
