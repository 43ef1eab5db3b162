//! X.509 certificates (RFC 5280), as far as a chain of signatures is followed.

use der::Decode as _;
use der::Encode as _;
use der::Reader as _;
use der::SliceReader;
use der::Tag;
use der::asn1::AnyRef;
use der::asn1::ObjectIdentifier;
use rsa::Pkcs1v15Sign;
use rsa::PublicKey;
use rsa::pkcs8::DecodePublicKey as _;
use sha2::Digest as _;
use sha2::Sha256;
use sha2::Sha384;
use sha2::Sha512;

const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const SHA384_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const SHA512_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");

/// A certificate, whose parts are those of its encoding. Names are compared as they are encoded.
pub(super) struct Certificate<'a> {
    /// The whole certificate.
    encoded: &'a [u8],
    /// What is signed.
    signed: Vec<u8>,
    algorithm: ObjectIdentifier,
    signature: &'a [u8],
    issuer: AnyRef<'a>,
    subject: AnyRef<'a>,
    key: Vec<u8>,
}

impl<'a> Certificate<'a> {
    /// Decodes a certificate, which is all of `encoded`.
    pub(super) fn decode(encoded: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(encoded)?;
        let certificate = AnyRef::decode(&mut reader)?;
        reader.finish()?;
        certificate.sequence(|fields| {
            let signed = AnyRef::decode(fields)?;
            let outer_algorithm = AnyRef::decode(fields)?;
            let signature = AnyRef::decode(fields)?;
            let to_sign = ToBeSigned::decode(signed)?;
            // It is also among what is signed.
            if outer_algorithm != to_sign.algorithm {
                return Err(Tag::Sequence.value_error().into());
            }
            Ok(Self {
                encoded,
                signed: signed.to_der()?,
                algorithm: algorithm(to_sign.algorithm)?,
                signature: bit_string(signature)?,
                issuer: to_sign.issuer,
                subject: to_sign.subject,
                key: to_sign.key.to_der()?,
            })
        })
    }

    /// The whole certificate.
    pub(super) fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// Whether they are the same certificate.
    pub(super) fn is(&self, other: &Certificate<'_>) -> bool {
        self.encoded == other.encoded
    }

    /// Whether the certificate says that `issuer` issued it.
    pub(super) fn names_issuer(&self, issuer: &Certificate<'_>) -> bool {
        self.issuer == issuer.subject
    }

    /// Whether the key of `issuer` signed this certificate.
    pub(super) fn is_signed_by(&self, issuer: &Certificate<'_>) -> bool {
        let Some(key) = issuer.public_key() else {
            return false;
        };
        let (signed, signature) = (&self.signed, self.signature);
        let checked = match self.algorithm {
            SHA256_WITH_RSA => key.verify(
                Pkcs1v15Sign::new::<Sha256>(),
                &Sha256::digest(signed),
                signature,
            ),
            SHA384_WITH_RSA => key.verify(
                Pkcs1v15Sign::new::<Sha384>(),
                &Sha384::digest(signed),
                signature,
            ),
            SHA512_WITH_RSA => key.verify(
                Pkcs1v15Sign::new::<Sha512>(),
                &Sha512::digest(signed),
                signature,
            ),
            _ => return false,
        };
        checked.is_ok()
    }

    /// Whether the certificate's key signed something with this SHA-256 digest.
    pub(super) fn has_signed(&self, digest: &[u8], signature: &[u8]) -> bool {
        self.public_key().is_some_and(|key| {
            key.verify(Pkcs1v15Sign::new::<Sha256>(), digest, signature)
                .is_ok()
        })
    }

    /// The key, if it is an RSA key of a size that is accepted (1024 to 8192 bits).
    fn public_key(&self) -> Option<PublicKey> {
        PublicKey::from_public_key_der(&self.key).ok()
    }
}

/// The parts of TBSCertificate that are used.
struct ToBeSigned<'a> {
    algorithm: AnyRef<'a>,
    issuer: AnyRef<'a>,
    subject: AnyRef<'a>,
    key: AnyRef<'a>,
}

impl<'a> ToBeSigned<'a> {
    fn decode(encoded: AnyRef<'a>) -> der::Result<Self> {
        encoded.sequence(|fields| {
            // An explicit version precedes the serial number.
            let first = AnyRef::decode(fields)?;
            if der::Tagged::tag(&first).is_context_specific() {
                AnyRef::decode(fields)?;
            }
            let algorithm = AnyRef::decode(fields)?;
            let issuer = AnyRef::decode(fields)?;
            let _validity = AnyRef::decode(fields)?;
            let subject = AnyRef::decode(fields)?;
            let key = AnyRef::decode(fields)?;
            while !fields.is_finished() {
                AnyRef::decode(fields)?;
            }
            Ok(Self {
                algorithm,
                issuer,
                subject,
                key,
            })
        })
    }
}

/// The object identifier in an AlgorithmIdentifier.
pub(super) fn algorithm(encoded: AnyRef<'_>) -> der::Result<ObjectIdentifier> {
    encoded.sequence(|fields| {
        let oid = ObjectIdentifier::decode(fields)?;
        while !fields.is_finished() {
            AnyRef::decode(fields)?;
        }
        Ok(oid)
    })
}

/// The bytes of a bit string that has whole bytes.
fn bit_string(encoded: AnyRef<'_>) -> der::Result<&[u8]> {
    der::Tagged::tag(&encoded).assert_eq(Tag::BitString)?;
    match encoded.value().split_first() {
        Some((0, bytes)) => Ok(bytes),
        _ => Err(Tag::BitString.value_error().into()),
    }
}
