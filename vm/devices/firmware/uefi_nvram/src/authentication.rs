//! Time-based authenticated variables (UEFI specification, section 8.2.2).

use crate::pkcs7;
use crate::pkcs7::Pkcs7Error;
use crate::pkcs7::Signer;
use uefi_nvram_storage::EfiTime;
use uefi_nvram_storage::VariableKey;
use uefi_specs::guid::CERT_TYPE_PKCS7;
use uefi_specs::variable::AuthenticationHeader;
use zerocopy::FromBytes as _;
use zerocopy::IntoBytes as _;

/// The data of a call that sets a time-based authenticated variable.
#[derive(Debug)]
pub(crate) struct AuthenticatedData<'a> {
    pub timestamp: EfiTime,
    signature: &'a [u8],
    /// What the variable is set to.
    pub data: &'a [u8],
}

/// The data does not start with a valid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the authentication header is invalid: {0}")]
pub(crate) struct HeaderError(&'static str);

impl<'a> AuthenticatedData<'a> {
    /// Splits the data of the call.
    pub(crate) fn decode(data: &'a [u8]) -> Result<Self, HeaderError> {
        let (header, rest) = AuthenticationHeader::read_from_prefix(data)
            .map_err(|_| HeaderError("it is truncated"))?;
        if header.revision.get() != AuthenticationHeader::REVISION
            || header.certificate_type.get() != AuthenticationHeader::CERTIFICATE_TYPE
            || header.signature_type != CERT_TYPE_PKCS7.to_bytes_le()
        {
            return Err(HeaderError("the signature is of another type than PKCS#7"));
        }
        let time = &header.timestamp;
        if time.pad1 != 0
            || time.pad2 != 0
            || time.nanosecond.get() != 0
            || time.time_zone.get() != 0
            || time.daylight != 0
        {
            return Err(HeaderError("a part of the time that must be zero is not"));
        }
        let (signature, data) = usize::try_from(header.certificate_len.get())
            .ok()
            .and_then(|len| len.checked_sub(AuthenticationHeader::CERTIFICATE_HEADER_LEN))
            .and_then(|len| rest.split_at_checked(len))
            .ok_or(HeaderError(
                "the signature's length is that of no signature",
            ))?;
        Ok(Self {
            timestamp: header.timestamp,
            signature,
            data,
        })
    }

    /// Who signed this for the variable `key` with the attributes of the call.
    pub(crate) fn signer(
        &self,
        key: &VariableKey,
        attributes: u32,
    ) -> Result<Signer<'a>, Pkcs7Error> {
        let name = key.name.as_bytes();
        let content = [
            // Without the NUL.
            &name[..name.len() - 2],
            &key.vendor.to_bytes_le(),
            &attributes.to_le_bytes(),
            self.timestamp.as_bytes(),
            self.data,
        ];
        pkcs7::verify_detached(self.signature, &content)
    }
}

/// Whether `time` is later than `other`. Both are those of authenticated variables: UTC, in whole seconds.
pub(crate) fn is_later(time: &EfiTime, other: &EfiTime) -> bool {
    let parts = |t: &EfiTime| (t.year.get(), t.month, t.day, t.hour, t.minute, t.second);
    parts(time) > parts(other)
}
