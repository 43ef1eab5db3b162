//! UEFI variables (UEFI specification, section 8.2).

use crate::EfiTime;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;

/// The attributes of a variable: `EFI_VARIABLE_*`.
#[allow(missing_docs, reason = "the names are those of the specification")]
pub mod attributes {
    pub const NON_VOLATILE: u32 = 0x01;
    pub const BOOTSERVICE_ACCESS: u32 = 0x02;
    pub const RUNTIME_ACCESS: u32 = 0x04;
    pub const HARDWARE_ERROR_RECORD: u32 = 0x08;
    /// Deprecated.
    pub const AUTHENTICATED_WRITE_ACCESS: u32 = 0x10;
    pub const TIME_BASED_AUTHENTICATED_WRITE_ACCESS: u32 = 0x20;
    /// Of a call, not of a variable.
    pub const APPEND_WRITE: u32 = 0x40;
    pub const ENHANCED_AUTHENTICATED_ACCESS: u32 = 0x80;
}

/// The start of the data of a call that sets a time-based authenticated variable: EFI_VARIABLE_AUTHENTICATION_2 up to
/// the signature, which is DER-encoded PKCS#7 SignedData, and is followed by the variable's data.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct AuthenticationHeader {
    /// When the data was signed.
    pub timestamp: EfiTime,
    /// WIN_CERTIFICATE.dwLength: the length in bytes from this field to the end of the signature.
    pub certificate_len: U32,
    /// WIN_CERTIFICATE.wRevision: [`AuthenticationHeader::REVISION`].
    pub revision: U16,
    /// WIN_CERTIFICATE.wCertificateType: [`AuthenticationHeader::CERTIFICATE_TYPE`].
    pub certificate_type: U16,
    /// The type of the signature: [`CERT_TYPE_PKCS7`](crate::guid::CERT_TYPE_PKCS7), in EFI's byte order.
    pub signature_type: [u8; 16],
}

impl AuthenticationHeader {
    /// The only revision there is.
    pub const REVISION: u16 = 0x0200;
    /// WIN_CERT_TYPE_EFI_GUID: the signature has a type of its own.
    pub const CERTIFICATE_TYPE: u16 = 0x0ef1;
    /// The length in bytes of the timestamp, which `certificate_len` does not include.
    pub const TIMESTAMP_LEN: usize = size_of::<EfiTime>();
    /// The length in bytes of what `certificate_len` includes beside the signature.
    pub const CERTIFICATE_HEADER_LEN: usize = size_of::<Self>() - Self::TIMESTAMP_LEN;
}
