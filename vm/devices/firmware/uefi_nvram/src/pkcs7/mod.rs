//! Checking PKCS#7 signatures (RFC 2315, RFC 5652) as they are used for UEFI variables: detached, with RSA and SHA-256,
//! by one signer.
//!
//! The input is the guest's. Everything is bounded by its length and by the limits here.

mod certificate;
mod signed_data;
mod verify;

pub use verify::Signer;
pub use verify::verify_detached;

/// The most certificates in a signature.
const MAX_CERTIFICATES: usize = 16;
/// The most certificates between the signer's and a trusted one.
const MAX_CHAIN: usize = 8;
/// The most signatures of certificates that are checked for one signature.
const MAX_CHECKS: usize = 64;

/// Why a signature does not authenticate its content.
#[derive(Debug, thiserror::Error)]
pub enum Pkcs7Error {
    /// It is not a signature that can be decoded.
    #[error("the signature is malformed")]
    Malformed(#[from] der::Error),
    /// It has another shape than that of a signature of a variable.
    #[error("the signature {0}")]
    Shape(&'static str),
    /// The signer did not sign this content.
    #[error("the signature is not that of the content by one of its {0} certificates")]
    NotSigned(usize),
    /// The signer is not trusted.
    #[error("the signer is not one of the {trusted} trusted certificates, nor certified by one")]
    NotTrusted {
        /// Number of trusted certificates.
        trusted: usize,
    },
}
