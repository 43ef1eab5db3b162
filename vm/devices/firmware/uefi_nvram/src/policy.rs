//! The variables that have a meaning to the variable services.

use uefi_nvram_storage::Name;
use uefi_nvram_storage::VariableKey;
use uefi_specs::guid::GLOBAL_VARIABLE;
use uefi_specs::guid::IMAGE_SECURITY_DATABASE;
use uuid::Uuid;
use uuid::uuid;

/// The vendor of `CurrentPolicy`, and the owner of the signatures that are injected.
pub(crate) const SECURE_BOOT_POLICY: Uuid = uuid!("77fa9abd-0359-4d32-bd60-28f4e78f784b");
/// The vendor of `OsLoaderIndications`.
pub(crate) const OS_LOADER: Uuid = uuid!("610b9e98-c6f6-47f8-8b47-2d2da0d52a91");
/// The vendor of `SecureBootEnable`.
pub(crate) const SECURE_BOOT_ENABLE: Uuid = uuid!("f0a30bc7-af08-4556-99c4-001009c93a44");
/// The vendor of `MokList`: shim.
pub(crate) const SHIM_LOCK: Uuid = uuid!("605dab50-e046-4300-abb6-3dd810dd8b23");

/// A variable of Secure Boot, whose changes its keys decide about.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum KeyVariable {
    /// The platform key. Without one, the machine is in setup mode.
    Pk,
    /// The key-exchange keys.
    Kek,
    /// `db`, `dbx`, `dbt` or `dbr`.
    Database,
}

impl KeyVariable {
    /// What `key` is of these.
    pub(crate) fn of(key: &VariableKey) -> Option<Self> {
        let name = |text: &str| key.name.is(text);
        if key.vendor == GLOBAL_VARIABLE {
            if name("PK") {
                return Some(Self::Pk);
            }
            return name("KEK").then_some(Self::Kek);
        }
        let is_database = key.vendor == IMAGE_SECURITY_DATABASE
            && ["db", "dbx", "dbt", "dbr"].into_iter().any(name);
        is_database.then_some(Self::Database)
    }
}

/// The variables that guests cannot set.
const READ_ONLY: [(Uuid, &str); 6] = [
    (GLOBAL_VARIABLE, "SecureBoot"),
    (GLOBAL_VARIABLE, "SetupMode"),
    (GLOBAL_VARIABLE, "dbDefault"),
    (SECURE_BOOT_ENABLE, "SecureBootEnable"),
    (SECURE_BOOT_POLICY, "CurrentPolicy"),
    (OS_LOADER, "OsLoaderIndicationsSupported"),
];

/// Whether guests cannot set this variable.
pub(crate) fn is_read_only(key: &VariableKey) -> bool {
    READ_ONLY.iter().any(|entry| is(key, *entry))
}

/// Whether guests can set this variable although it is volatile.
pub(crate) fn is_settable_volatile(key: &VariableKey) -> bool {
    is(key, (OS_LOADER, "OsLoaderIndications"))
}

fn is(key: &VariableKey, (vendor, name): (Uuid, &str)) -> bool {
    key.vendor == vendor && key.name.is(name)
}

/// The key of a variable with a name of this program's own.
pub(crate) fn key(vendor: Uuid, name: &str) -> VariableKey {
    let name = Name::new(name).unwrap_or_else(|| unreachable!("the name has no NUL"));
    VariableKey { vendor, name }
}
