//! GUIDs.

use std::fmt;
use std::str::FromStr;

/// A GUID, in the byte order of its text: its order is that of its fields.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

/// A text is no GUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx, with or without braces)")]
pub struct ParseGuidError;

impl Guid {
    /// Vendor of the variables that the UEFI specification defines.
    pub const GLOBAL_VARIABLE: Self = Self::new(0x8be4_df61_93ca_11d2_aa0d_00e0_9803_2b8c);
    /// Vendor of the variables `db` and `dbx`.
    pub const IMAGE_SECURITY_DATABASE: Self = Self::new(0xd719_b2cb_3d3a_4596_a3bc_dad0_0e67_656f);
    /// Type of signature lists of SHA-256 digests.
    pub const CERT_SHA256: Self = Self::new(0xc1c4_1626_504c_4092_aca9_41f9_3693_4328);
    /// Type of signature lists of X.509 certificates.
    pub const CERT_X509: Self = Self::new(0xa5c0_59a1_94e4_4aa7_87b5_ab15_5c2b_f072);

    /// The GUID whose text has the digits of this number.
    pub const fn new(digits: u128) -> Self {
        Self(digits.to_be_bytes())
    }

    /// The GUID in mixed-endian bytes, as EFI structures have it: the first three fields are
    /// little-endian.
    pub fn from_efi(mut bytes: [u8; 16]) -> Self {
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        Self(bytes)
    }

    /// The mixed-endian bytes.
    pub fn to_efi(self) -> [u8; 16] {
        Self::from_efi(self.0).0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, ParseGuidError> {
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        let text = inner.unwrap_or(text);
        let groups: Vec<&str> = text.split('-').collect();
        let lengths = groups.iter().map(|g| g.len());
        if !lengths.eq([8, 4, 4, 4, 12])
            || !text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
        {
            return Err(ParseGuidError);
        }
        u128::from_str_radix(&groups.concat(), 16)
            .map(Self::new)
            .map_err(|_| ParseGuidError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_round_trip() {
        let text = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
        let guid: Guid = text.parse().unwrap();
        assert_eq!(guid, Guid::GLOBAL_VARIABLE);
        assert_eq!(guid.to_string(), text);
        assert_eq!(
            guid.to_efi()[..8],
            [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11]
        );
        assert_eq!(Guid::from_efi(guid.to_efi()), guid);
        assert_eq!(format!("{{{}}}", text.to_uppercase()).parse(), Ok(guid));
    }

    #[test]
    fn what_is_no_guid_is_refused() {
        for text in [
            "",
            "{}",
            "8be4df61",
            "{8be4df61-93ca-11d2-aa0d-00e098032b8c",
            "8be4df6193ca-11d2-aa0d-00e098032b8c-",
            "+be4df61-93ca-11d2-aa0d-00e098032b8c",
            "éé4df61-93ca-11d2-aa0d-00e098032b8c",
        ] {
            assert_eq!(text.parse::<Guid>(), Err(ParseGuidError), "{text}");
        }
    }
}
