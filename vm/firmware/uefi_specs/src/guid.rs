//! Well-known GUIDs.
//!
//! EFI structures hold GUIDs in mixed-endian byte order, in which the first three fields are
//! little-endian: [`Uuid::from_bytes_le`] and [`Uuid::to_bytes_le`].

use uuid::Uuid;
use uuid::uuid;

/// EFI_GLOBAL_VARIABLE: the vendor of the variables that the UEFI specification defines.
pub const GLOBAL_VARIABLE: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
/// EFI_IMAGE_SECURITY_DATABASE_GUID: the vendor of `db`, `dbx`, `dbt` and `dbr`.
pub const IMAGE_SECURITY_DATABASE: Uuid = uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
/// EFI_CERT_TYPE_PKCS7_GUID: the type of the signature of a time-based authenticated variable.
pub const CERT_TYPE_PKCS7: Uuid = uuid!("4aafd29d-68df-49ee-8aa9-347d375665a7");
/// EFI_CERT_SHA256_GUID: the type of signature lists of SHA-256 digests.
pub const CERT_SHA256: Uuid = uuid!("c1c41626-504c-4092-aca9-41f936934328");
/// EFI_CERT_X509_GUID: the type of signature lists of X.509 certificates.
pub const CERT_X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::ToString as _;

    #[test]
    fn text_and_bytes_are_those_of_efi() {
        let text = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
        assert_eq!(GLOBAL_VARIABLE.to_string(), text);
        assert_eq!(format!("{GLOBAL_VARIABLE:?}"), text);
        assert_eq!(
            GLOBAL_VARIABLE.to_bytes_le(),
            [
                0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03,
                0x2b, 0x8c
            ]
        );
        let braced = format!("{{{}}}", text.to_uppercase());
        assert_eq!(braced.parse(), Ok(GLOBAL_VARIABLE));
    }

    #[test]
    fn order_is_that_of_the_text() {
        // The order of variables in the file. In the bytes of the file it would be the other way round.
        let low = uuid!("00000001-ff00-0000-0000-000000000000");
        let high = uuid!("01000000-0000-0000-0000-000000000000");
        assert!(low < high);
        assert!(low.to_bytes_le() > high.to_bytes_le());
    }

    #[test]
    fn text_that_is_not_a_guid_is_refused() {
        for text in [
            "",
            "{}",
            "8be4df61",
            "{8be4df61-93ca-11d2-aa0d-00e098032b8c",
            "8be4df6193ca-11d2-aa0d-00e098032b8c-",
            "+be4df61-93ca-11d2-aa0d-00e098032b8c",
            "éé4df61-93ca-11d2-aa0d-00e098032b8c",
        ] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }
}
