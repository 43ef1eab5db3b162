//! SignedData (RFC 5652, section 5.1).

use super::MAX_CERTIFICATES;
use super::Pkcs7Error;
use super::certificate::Certificate;
use super::certificate::algorithm;
use der::Decode as _;
use der::Encode as _;
use der::Reader as _;
use der::SliceReader;
use der::Tag;
use der::TagNumber;
use der::Tagged as _;
use der::asn1::AnyRef;
use der::asn1::ObjectIdentifier;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");

/// A detached signature by one signer.
pub(super) struct SignedData<'a> {
    pub certificates: Vec<Certificate<'a>>,
    pub signature: &'a [u8],
    /// What is signed instead of the content: attributes, among them the content's digest.
    pub attributes: Option<SignedAttributes<'a>>,
}

/// The attributes that are signed with the content.
pub(super) struct SignedAttributes<'a> {
    /// As they are signed.
    pub encoded: Vec<u8>,
    /// The digest of the content.
    pub digest: &'a [u8],
}

impl<'a> SignedData<'a> {
    /// Decodes a SignedData, with or without the ContentInfo around it, which is all of `encoded`.
    pub(super) fn decode(encoded: &'a [u8]) -> Result<Self, Pkcs7Error> {
        let outer = whole(encoded)?;
        outer.tag().assert_eq(Tag::Sequence)?;
        let mut fields = SliceReader::new(outer.value())?;
        let first = AnyRef::decode(&mut fields)?;
        if first.tag() == Tag::ObjectIdentifier {
            if first.decode_as::<ObjectIdentifier>()? != SIGNED_DATA {
                return Err(Pkcs7Error::Shape("is not a SignedData"));
            }
            let content = AnyRef::decode(&mut fields)?;
            fields.finish()?;
            content.tag().assert_eq(context(0, true))?;
            return Self::from_sequence(whole(content.value())?);
        }
        Self::from_sequence(outer)
    }

    fn from_sequence(encoded: AnyRef<'a>) -> Result<Self, Pkcs7Error> {
        encoded.sequence(|fields| {
            let version = AnyRef::decode(fields)?;
            version.tag().assert_eq(Tag::Integer)?;
            let digests = AnyRef::decode(fields)?;
            digests.tag().assert_eq(Tag::Set)?;
            let content = AnyRef::decode(fields)?;
            content.sequence(|fields| {
                let _kind: ObjectIdentifier = fields.decode()?;
                if fields.is_finished() {
                    Ok(())
                } else {
                    Err(Pkcs7Error::Shape("has its content in it"))
                }
            })?;
            let mut next = AnyRef::decode(fields)?;
            let mut certificates = Vec::new();
            if next.tag() == context(0, true) {
                certificates = decode_certificates(next)?;
                next = AnyRef::decode(fields)?;
            }
            if next.tag() == context(1, true) {
                // Lists of revoked certificates; UEFI has dbx instead.
                next = AnyRef::decode(fields)?;
            }
            next.tag().assert_eq(Tag::Set)?;
            let mut signers = SliceReader::new(next.value())?;
            let signer = AnyRef::decode(&mut signers)?;
            if !signers.is_finished() {
                return Err(Pkcs7Error::Shape("has more than one signer"));
            }
            Self::from_signer(signer, certificates)
        })
    }

    fn from_signer(
        signer: AnyRef<'a>,
        certificates: Vec<Certificate<'a>>,
    ) -> Result<Self, Pkcs7Error> {
        signer.sequence(|fields| {
            let version = AnyRef::decode(fields)?;
            version.tag().assert_eq(Tag::Integer)?;
            // Each certificate's key is tried, so the name of the right one is not needed.
            let _signer = AnyRef::decode(fields)?;
            if algorithm(AnyRef::decode(fields)?)? != SHA256 {
                return Err(Pkcs7Error::Shape("has another digest than SHA-256"));
            }
            let mut next = AnyRef::decode(fields)?;
            let mut attributes = None;
            if next.tag() == context(0, true) {
                attributes = Some(decode_attributes(next)?);
                next = AnyRef::decode(fields)?;
            }
            if ![RSA, SHA256_WITH_RSA].contains(&algorithm(next)?) {
                return Err(Pkcs7Error::Shape("is not one with RSA (PKCS #1 v1.5)"));
            }
            let signature = AnyRef::decode(fields)?;
            signature.tag().assert_eq(Tag::OctetString)?;
            while !fields.is_finished() {
                // Attributes that are not signed.
                AnyRef::decode(fields)?;
            }
            Ok(Self {
                certificates,
                signature: signature.value(),
                attributes,
            })
        })
    }
}

fn decode_certificates(set: AnyRef<'_>) -> Result<Vec<Certificate<'_>>, Pkcs7Error> {
    let encoded = set.value();
    let mut reader = SliceReader::new(encoded)?;
    let mut certificates = Vec::new();
    while !reader.is_finished() {
        if certificates.len() == MAX_CERTIFICATES {
            return Err(Pkcs7Error::Shape("has too many certificates"));
        }
        let start = usize::try_from(reader.position())?;
        AnyRef::decode(&mut reader)?;
        let end = usize::try_from(reader.position())?;
        // The reader is over `encoded`.
        certificates.push(Certificate::decode(&encoded[start..end])?);
    }
    Ok(certificates)
}

fn decode_attributes(attributes: AnyRef<'_>) -> Result<SignedAttributes<'_>, Pkcs7Error> {
    let mut reader = SliceReader::new(attributes.value())?;
    let mut digests = Vec::new();
    while !reader.is_finished() {
        let (oid, values) = AnyRef::decode(&mut reader)?.sequence(|fields| {
            let oid = ObjectIdentifier::decode(fields)?;
            Ok::<_, der::Error>((oid, AnyRef::decode(fields)?))
        })?;
        if oid == MESSAGE_DIGEST {
            values.tag().assert_eq(Tag::Set)?;
            let digest = whole(values.value())?;
            digest.tag().assert_eq(Tag::OctetString)?;
            digests.push(digest.value());
        }
    }
    let [digest] = digests[..] else {
        return Err(Pkcs7Error::Shape("has not one digest of the content"));
    };
    // They are signed with the tag of a set.
    let encoded = AnyRef::new(Tag::Set, attributes.value())?.to_der()?;
    Ok(SignedAttributes { encoded, digest })
}

/// What is all of `encoded`.
fn whole(encoded: &[u8]) -> der::Result<AnyRef<'_>> {
    let mut reader = SliceReader::new(encoded)?;
    let value = AnyRef::decode(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

const fn context(number: u32, constructed: bool) -> Tag {
    Tag::ContextSpecific {
        constructed,
        number: TagNumber(number),
    }
}
