//! Who may change a private authenticated variable: the one who created it (UEFI specification, section 8.2.2).

use crate::policy;
use std::collections::BTreeMap;
use uefi_nvram_storage::Name;
use uefi_nvram_storage::SetError;
use uefi_nvram_storage::Variable;
use uefi_nvram_storage::VariableKey;
use uefi_nvram_storage::Variables;
use uefi_specs::variable::attributes::BOOTSERVICE_ACCESS;
use uefi_specs::variable::attributes::NON_VOLATILE;
use uuid::Uuid;
use uuid::uuid;

/// The vendor of the variable that holds the owners.
const VENDOR: Uuid = uuid!("3b4ac3a6-3a6c-4f0a-9a0e-6a7b6fd3a5c1");
/// Its name.
const NAME: &str = "PrivateVariableOwners";

/// Bytes of the SHA-256 digest of a signer's certificate.
const DIGEST_LEN: usize = 32;

/// The owners of private authenticated variables: the SHA-256 digests of their certificates.
///
/// They are kept in a variable that guests do not see, as a list of vendor, length of the name (16 bits), name and
/// digest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Owners(BTreeMap<VariableKey, [u8; DIGEST_LEN]>);

/// Whether this is the variable that holds the owners.
pub(crate) fn is_hidden(key: &VariableKey) -> bool {
    key.vendor == VENDOR && key.name.is(NAME)
}

impl Owners {
    /// The owners in `variables`; `None` if they are malformed, so that nobody owns anything.
    pub(crate) fn of(variables: &Variables) -> Option<Self> {
        let stored = variables.get(&policy::key(VENDOR, NAME));
        let mut rest = stored.map_or(&[][..], |variable| &variable.data);
        let mut owners = BTreeMap::new();
        while !rest.is_empty() {
            let (vendor, after) = rest.split_first_chunk::<16>()?;
            let (len, after) = after.split_first_chunk::<2>()?;
            let (name, after) = after.split_at_checked(u16::from_le_bytes(*len).into())?;
            let (digest, after) = after.split_first_chunk()?;
            let key = VariableKey {
                vendor: Uuid::from_bytes_le(*vendor),
                name: Name::from_bytes(name)?,
            };
            owners.insert(key, *digest);
            rest = after;
        }
        Some(Self(owners))
    }

    /// The owner of a variable.
    pub(crate) fn get(&self, key: &VariableKey) -> Option<&[u8; DIGEST_LEN]> {
        self.0.get(key)
    }

    /// Stores the owner of a variable, or that it has none because it does not exist.
    pub(crate) fn set(
        variables: &mut Variables,
        key: &VariableKey,
        owner: [u8; DIGEST_LEN],
    ) -> Result<(), SetError> {
        let mut owners = Self::of(variables).unwrap_or_default().0;
        // Those of variables that were deleted, here or by other programs, are left out.
        owners.retain(|key, _| variables.get(key).is_some());
        if variables.get(key).is_some() {
            owners.insert(key.clone(), owner);
        }
        let mut data = Vec::new();
        for (key, digest) in &owners {
            let name = key.name.as_bytes();
            data.extend(key.vendor.to_bytes_le());
            // A name has at most 2 KiB.
            data.extend((name.len() as u16).to_le_bytes());
            data.extend(name);
            data.extend(digest);
        }
        let hidden = policy::key(VENDOR, NAME);
        if data.is_empty() {
            variables.remove(&hidden);
            return Ok(());
        }
        let variable = Variable {
            attributes: NON_VOLATILE | BOOTSERVICE_ACCESS,
            data,
            ..Variable::default()
        };
        variables.set(hidden, variable)
    }
}
