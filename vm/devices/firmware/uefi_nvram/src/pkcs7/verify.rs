//! Who signed, and whether that is trusted.

use super::MAX_CHAIN;
use super::MAX_CHECKS;
use super::Pkcs7Error;
use super::certificate::Certificate;
use super::signed_data::SignedData;
use sha2::Digest as _;
use sha2::Sha256;

/// The signer of some content.
pub struct Signer<'a> {
    certificates: Vec<Certificate<'a>>,
    /// The signer's certificate among them.
    index: usize,
}

/// Checks that `signature`, a PKCS#7 SignedData, is one of the parts of `content` one after the other. Whether the signer
/// is trusted is another question.
pub fn verify_detached<'a>(
    signature: &'a [u8],
    content: &[&[u8]],
) -> Result<Signer<'a>, Pkcs7Error> {
    let SignedData {
        certificates,
        signature,
        attributes,
    } = SignedData::decode(signature)?;
    let mut digest = Sha256::new();
    for part in content {
        digest.update(part);
    }
    let mut digest = digest.finalize();
    if let Some(attributes) = attributes {
        if attributes.digest != digest.as_slice() {
            return Err(Pkcs7Error::NotSigned(certificates.len()));
        }
        digest = Sha256::digest(&attributes.encoded);
    }
    let index = certificates
        .iter()
        .position(|certificate| certificate.has_signed(&digest, signature))
        .ok_or(Pkcs7Error::NotSigned(certificates.len()))?;
    Ok(Signer {
        certificates,
        index,
    })
}

impl Signer<'_> {
    /// The signer's certificate, DER-encoded.
    pub fn certificate(&self) -> &[u8] {
        self.certificates[self.index].encoded()
    }

    /// Checks that the signer is among `trusted`, or is certified by one of them through certificates in the signature.
    ///
    /// The trusted certificates are DER-encoded; what is no X.509 certificate is not trusted. Dates and purposes of
    /// certificates do not matter, and neither does it whether a trusted one is certified itself.
    pub fn require_trust(&self, trusted: &[&[u8]]) -> Result<(), Pkcs7Error> {
        let trusted: Vec<_> = trusted
            .iter()
            .filter_map(|certificate| Certificate::decode(certificate).ok())
            .collect();
        let mut search = Search {
            certificates: &self.certificates,
            trusted: &trusted,
            checks_left: MAX_CHECKS,
        };
        if search.leads_to_trust(&self.certificates[self.index], MAX_CHAIN) {
            Ok(())
        } else {
            let trusted = trusted.len();
            Err(Pkcs7Error::NotTrusted { trusted })
        }
    }
}

/// A search for a chain of certificates to a trusted one.
struct Search<'a> {
    certificates: &'a [Certificate<'a>],
    trusted: &'a [Certificate<'a>],
    checks_left: usize,
}

impl Search<'_> {
    /// Whether `certificate` is trusted, or certified by one that leads to trust in at most `steps` steps.
    fn leads_to_trust(&mut self, certificate: &Certificate<'_>, steps: usize) -> bool {
        if self.trusted.iter().any(|trusted| trusted.is(certificate)) {
            return true;
        }
        if steps == 0 {
            return false;
        }
        let (certificates, trusted) = (self.certificates, self.trusted);
        if trusted
            .iter()
            .any(|issuer| self.issued(certificate, issuer))
        {
            return true;
        }
        certificates.iter().any(|issuer| {
            !issuer.is(certificate)
                && self.issued(certificate, issuer)
                && self.leads_to_trust(issuer, steps - 1)
        })
    }

    fn issued(&mut self, certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
        if !certificate.names_issuer(issuer) || self.checks_left == 0 {
            return false;
        }
        self.checks_left -= 1;
        certificate.is_signed_by(issuer)
    }
}

#[cfg(test)]
#[path = "verify_test.rs"]
mod tests;
