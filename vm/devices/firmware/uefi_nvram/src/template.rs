//! Well-known sets of keys.

use crate::secure_boot::SecureBootKeys;
use crate::secure_boot::Signature;
use std::str::FromStr;

const PK: &[u8] = include_bytes!("../certificates/ms-oem-pk-2023.der");
const KEK: [&[u8]; 2] = [
    include_bytes!("../certificates/ms-kek-2011.der"),
    include_bytes!("../certificates/ms-kek-2023.der"),
];
const WINDOWS: [&[u8]; 2] = [
    include_bytes!("../certificates/windows-2011.der"),
    include_bytes!("../certificates/windows-2023.der"),
];
const THIRD_PARTIES: [&[u8]; 2] = [
    include_bytes!("../certificates/ms-uefi-2011.der"),
    include_bytes!("../certificates/ms-uefi-2023.der"),
];

/// A well-known set of keys.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum SecureBootTemplate {
    /// Windows boots.
    MicrosoftWindows,
    /// What Microsoft signs for others boots too, such as shim of Linux distributions.
    MicrosoftUefiCertificateAuthority,
}

impl SecureBootTemplate {
    /// The names on the command line.
    pub const NAMES: [&str; 2] = ["windows", "uefi_ca"];

    /// The keys. Nothing is denied: the guest's operating system installs the list of what is, which Microsoft signs.
    pub fn keys(self) -> SecureBootKeys {
        let certificates = |list: &[&[u8]]| {
            let list = list.iter();
            list.map(|der| Signature::X509(der.to_vec())).collect()
        };
        let db = match self {
            Self::MicrosoftWindows => certificates(&WINDOWS),
            Self::MicrosoftUefiCertificateAuthority => {
                certificates(&[WINDOWS, THIRD_PARTIES].concat())
            }
        };
        SecureBootKeys {
            pk: Some(Signature::X509(PK.to_vec())),
            kek: certificates(&KEK),
            db,
            ..SecureBootKeys::default()
        }
    }
}

/// There is no template of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no Secure Boot template `{name}`; there are {}", SecureBootTemplate::NAMES.join(" and "))]
pub struct UnknownTemplate {
    /// The name.
    pub name: String,
}

impl FromStr for SecureBootTemplate {
    type Err = UnknownTemplate;

    fn from_str(name: &str) -> Result<Self, UnknownTemplate> {
        match name {
            "windows" => Ok(Self::MicrosoftWindows),
            "uefi_ca" => Ok(Self::MicrosoftUefiCertificateAuthority),
            _ => Err(UnknownTemplate { name: name.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Digest as _;
    use sha2::Sha256;

    #[test]
    fn the_certificates_are_the_published_ones() {
        for (der, digest) in [
            (
                PK,
                "2f569e8edaf9657dc4951c29598725255c7f821472db71374211fe44d082546f",
            ),
            (
                KEK[0],
                "a1117f516a32cefcba3f2d1ace10a87972fd6bbe8fe0d0b996e09e65d802a503",
            ),
            (
                KEK[1],
                "3cd3f0309edae228767a976dd40d9f4affc4fbd5218f2e8cc3c9dd97e8ac6f9d",
            ),
            (
                WINDOWS[0],
                "e8e95f0733a55e8bad7be0a1413ee23c51fcea64b3c8fa6a786935fddcc71961",
            ),
            (
                WINDOWS[1],
                "076f1fea90ac29155ebf77c17682f75f1fdd1be196da302dc8461e350a9ae330",
            ),
            (
                THIRD_PARTIES[0],
                "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507",
            ),
            (
                THIRD_PARTIES[1],
                "f6124e34125bee3fe6d79a574eaa7b91c0e7bd9d929c1a321178efd611dad901",
            ),
        ] {
            let actual = data_encoding::HEXLOWER.encode(&Sha256::digest(der));
            assert_eq!(actual, digest);
        }
    }

    #[test]
    fn templates_have_names_and_fit_the_store() {
        for name in SecureBootTemplate::NAMES {
            let template: SecureBootTemplate = name.parse().unwrap();
            let keys = template.keys();
            assert!(keys.pk.is_some() && keys.kek.len() == 2 && keys.db.len() >= 2);
            let secure_boot = crate::SecureBoot {
                is_enabled: true,
                keys,
            };
            let storage = Box::new(crate::MemoryNvram);
            let services = crate::VariableServices::new(storage, None, &secure_boot).unwrap();
            assert!(services.variables().encoded_len() < 20 << 10);
        }
        let error = SecureBootTemplate::from_str("x").unwrap_err();
        assert!(error.to_string().contains("windows and uefi_ca"), "{error}");
    }
}
