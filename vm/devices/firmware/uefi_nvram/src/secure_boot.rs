//! What a VM's variables start with: the keys of Secure Boot, and the variables that only the host sets.

use crate::policy;
use crate::policy::OS_LOADER;
use crate::policy::SECURE_BOOT_ENABLE;
use crate::policy::SECURE_BOOT_POLICY;
use crate::policy::SHIM_LOCK;
use crate::services::VariableServicesError;
use minicbor::Decode;
use minicbor::Encode;
use uefi_nvram_storage::SetError;
use uefi_nvram_storage::SignatureData;
use uefi_nvram_storage::SignatureList;
use uefi_nvram_storage::Variable;
use uefi_nvram_storage::VariableKey;
use uefi_nvram_storage::Variables;
use uefi_specs::guid::CERT_SHA256;
use uefi_specs::guid::CERT_X509;
use uefi_specs::guid::GLOBAL_VARIABLE;
use uefi_specs::guid::IMAGE_SECURITY_DATABASE;
use uefi_specs::variable::attributes::BOOTSERVICE_ACCESS as BS;
use uefi_specs::variable::attributes::NON_VOLATILE as NV;
use uefi_specs::variable::attributes::RUNTIME_ACCESS as RT;
use uefi_specs::variable::attributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS as AUTHENTICATED;
use uuid::Uuid;

/// A certificate or digest that Secure Boot allows or denies.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Signature {
    /// A DER-encoded X.509 certificate.
    #[n(1)]
    X509(#[cbor(n(1), with = "minicbor::bytes")] Vec<u8>),
    /// The SHA-256 digest of an image.
    #[n(2)]
    Sha256(#[cbor(n(1), with = "minicbor::bytes")] [u8; 32]),
}

/// A variable that a new VM has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct InjectedVariable {
    /// The name.
    #[n(1)]
    pub name: String,
    /// The vendor's GUID, in EFI's byte order.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub vendor: [u8; 16],
    /// `EFI_VARIABLE_*` bits.
    #[n(3)]
    pub attributes: u32,
    /// The data.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub data: Vec<u8>,
}

/// The keys of Secure Boot that a new VM has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SecureBootKeys {
    /// The platform key; without one, the VM starts in setup mode.
    #[n(1)]
    pub pk: Option<Signature>,
    /// The key-exchange keys.
    #[n(2)]
    pub kek: Vec<Signature>,
    /// What may be booted.
    #[n(3)]
    pub db: Vec<Signature>,
    /// What may not be booted.
    #[n(4)]
    pub dbx: Vec<Signature>,
    /// What shim lets boot.
    #[n(5)]
    pub mok_list: Vec<Signature>,
    /// What shim does not let boot.
    #[n(6)]
    pub mok_list_x: Vec<Signature>,
    /// Further variables.
    #[n(7)]
    pub variables: Vec<InjectedVariable>,
}

/// What the variables of a VM start with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SecureBoot {
    /// Whether the firmware boots only what is allowed. Said to it at each start.
    #[n(1)]
    pub is_enabled: bool,
    /// For a VM that has no variables yet.
    #[n(2)]
    pub keys: SecureBootKeys,
}

impl SecureBoot {
    /// `variables` as the VM starts with them.
    pub(crate) fn inject(
        &self,
        mut variables: Variables,
    ) -> Result<Variables, VariableServicesError> {
        if variables.is_empty() {
            self.first_boot(&mut Injection(&mut variables))?;
        }
        let mut injection = Injection(&mut variables);
        injection.set(OS_LOADER, "OsLoaderIndications", BS, &[0; 4])?;
        injection.set(
            OS_LOADER,
            "OsLoaderIndicationsSupported",
            BS,
            &1_u32.to_le_bytes(),
        )?;
        let enabled = [u8::from(self.is_enabled)];
        // Firmware knows it with this attribute, although it is set at each start.
        injection.set(GLOBAL_VARIABLE, "SecureBoot", NV | BS | RT, &enabled)?;
        injection.set(
            SECURE_BOOT_ENABLE,
            "SecureBootEnable",
            NV | BS | RT,
            &enabled,
        )?;
        Ok(variables)
    }

    fn first_boot(&self, injection: &mut Injection<'_>) -> Result<(), VariableServicesError> {
        let keys = &self.keys;
        let signed = NV | BS | RT | AUTHENTICATED;
        injection.set(SECURE_BOOT_POLICY, "CurrentPolicy", signed, &[2])?;
        for variable in &keys.variables {
            injection.set(
                Uuid::from_bytes_le(variable.vendor),
                &variable.name,
                variable.attributes,
                &variable.data,
            )?;
        }
        let (global, database) = (GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE);
        injection.set_signatures(global, "KEK", signed, &keys.kek)?;
        injection.set_signatures(database, "db", signed, &keys.db)?;
        injection.set_signatures(database, "dbx", signed, &keys.dbx)?;
        injection.set_signatures(global, "PK", signed, keys.pk.as_slice())?;
        injection.set_signatures(global, "dbDefault", BS | RT, &keys.db)?;
        injection.set_signatures(SHIM_LOCK, "MokList", NV | BS | RT, &keys.mok_list)?;
        injection.set_signatures(SHIM_LOCK, "MokListX", NV | BS | RT, &keys.mok_list_x)?;
        Self::set_setup_mode(injection.0).map_err(|source| VariableServicesError::Inject {
            name: "SetupMode".into(),
            source,
        })
    }

    /// Sets the variable that tells whether the machine has no platform key.
    pub(crate) fn set_setup_mode(variables: &mut Variables) -> Result<(), SetError> {
        let pk = variables.get(&policy::key(GLOBAL_VARIABLE, "PK"));
        let mode = u8::from(pk.is_none());
        let key = policy::key(GLOBAL_VARIABLE, "SetupMode");
        variables.set(key, plain(NV | BS | RT, &[mode]))
    }

    /// Sets the variables that a reset of the machine sets.
    pub(crate) fn reset(variables: &mut Variables) -> Result<(), SetError> {
        let key = policy::key(OS_LOADER, "OsLoaderIndications");
        variables.set(key, plain(BS, &[0; 4]))
    }
}

/// A variable that was never signed.
fn plain(attributes: u32, data: &[u8]) -> Variable {
    Variable {
        attributes,
        data: data.to_vec(),
        ..Variable::default()
    }
}

/// Sets variables without the checks for guests.
struct Injection<'a>(&'a mut Variables);

impl Injection<'_> {
    fn set(
        &mut self,
        vendor: Uuid,
        name: &str,
        attributes: u32,
        data: &[u8],
    ) -> Result<(), VariableServicesError> {
        let key = match uefi_nvram_storage::Name::new(name) {
            Some(name) => VariableKey { vendor, name },
            None => return Err(VariableServicesError::Name { name: name.into() }),
        };
        self.0
            .set(key, plain(attributes, data))
            .map_err(|source| VariableServicesError::Inject {
                name: name.into(),
                source,
            })
    }

    /// Sets a variable to signature lists; none if there are no signatures.
    fn set_signatures(
        &mut self,
        vendor: Uuid,
        name: &str,
        attributes: u32,
        signatures: &[Signature],
    ) -> Result<(), VariableServicesError> {
        if signatures.is_empty() {
            return Ok(());
        }
        self.set(vendor, name, attributes, &encode(signatures))
    }
}

/// The signature lists of `signatures`: one for each certificate, and one for all digests.
fn encode(signatures: &[Signature]) -> Vec<u8> {
    let list = |kind: Uuid, data: Vec<Vec<u8>>| SignatureList {
        kind,
        header: Vec::new(),
        signatures: data
            .into_iter()
            .map(|data| SignatureData {
                owner: SECURE_BOOT_POLICY,
                data,
            })
            .collect(),
    };
    let mut bytes = Vec::new();
    let mut digests = Vec::new();
    for signature in signatures {
        match signature {
            Signature::X509(certificate) => {
                bytes.extend(list(CERT_X509, vec![certificate.clone()]).encode());
            }
            Signature::Sha256(digest) => digests.push(digest.to_vec()),
        }
    }
    if !digests.is_empty() {
        bytes.extend(list(CERT_SHA256, digests).encode());
    }
    bytes
}
