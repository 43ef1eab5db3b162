//! GetVariable, GetNextVariableName, SetVariable and QueryVariableInfo.

use crate::authentication::AuthenticatedData;
use crate::authentication::is_later;
use crate::owners;
use crate::owners::Owners;
use crate::policy;
use crate::policy::KeyVariable;
use crate::secure_boot::SecureBoot;
use crate::storage::NvramStorage;
use crate::store::NvramStore;
use log_limit::LogLimit;
use minicbor::Decode;
use minicbor::Encode;
use sha2::Digest as _;
use sha2::Sha256;
use std::error::Error;
use uefi_nvram_storage::EfiTime;
use uefi_nvram_storage::MAX_DATA_LEN;
use uefi_nvram_storage::MAX_TOTAL_LEN;
use uefi_nvram_storage::NameQuirk;
use uefi_nvram_storage::SetError;
use uefi_nvram_storage::SignatureData;
use uefi_nvram_storage::SignatureList;
use uefi_nvram_storage::Variable;
use uefi_nvram_storage::VariableKey;
use uefi_nvram_storage::Variables;
use uefi_nvram_storage::VariablesDecodeError;
use uefi_nvram_storage::signature_lists;
use uefi_specs::EfiStatus;
use uefi_specs::guid::CERT_SHA256;
use uefi_specs::guid::CERT_X509;
use uefi_specs::guid::GLOBAL_VARIABLE;
use uefi_specs::variable::attributes::APPEND_WRITE;
use uefi_specs::variable::attributes::AUTHENTICATED_WRITE_ACCESS;
use uefi_specs::variable::attributes::BOOTSERVICE_ACCESS;
use uefi_specs::variable::attributes::ENHANCED_AUTHENTICATED_ACCESS;
use uefi_specs::variable::attributes::HARDWARE_ERROR_RECORD;
use uefi_specs::variable::attributes::NON_VOLATILE;
use uefi_specs::variable::attributes::RUNTIME_ACCESS;
use uefi_specs::variable::attributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS;

/// All attributes that the specification defines.
const KNOWN_ATTRIBUTES: u32 = NON_VOLATILE
    | BOOTSERVICE_ACCESS
    | RUNTIME_ACCESS
    | HARDWARE_ERROR_RECORD
    | AUTHENTICATED_WRITE_ACCESS
    | TIME_BASED_AUTHENTICATED_WRITE_ACCESS
    | APPEND_WRITE
    | ENHANCED_AUTHENTICATED_ACCESS;

/// A variable without either of them is deleted.
const ACCESS: u32 = BOOTSERVICE_ACCESS | RUNTIME_ACCESS;

/// The bytes of the owner before a signature's data.
const SIGNATURE_OWNER_LEN: usize = 16;

/// Who calls.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// The firmware and what it loads.
    #[n(1)]
    Boot,
    /// The operating system, after ExitBootServices.
    #[n(2)]
    Runtime,
}

/// The state of the services, to be saved.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NvramState {
    /// Who calls.
    #[n(1)]
    phase: Phase,
    /// All variables, in the format of the file.
    #[cbor(n(2), with = "minicbor::bytes")]
    variables: Vec<u8>,
}

/// Why there can be no variables.
#[derive(Debug, thiserror::Error)]
pub enum VariableServicesError {
    /// The file cannot be decoded.
    #[error("the UEFI variables in {place} cannot be used")]
    Decode {
        /// Where they are kept.
        place: String,
        /// What is wrong with them.
        #[source]
        source: VariablesDecodeError,
    },
    /// A variable cannot have this name.
    #[error("no UEFI variable can have the name `{}`", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// A variable that a new VM starts with cannot be set.
    #[error("cannot set the UEFI variable `{name}` that the VM is to start with")]
    Inject {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: SetError,
    },
}

/// UEFI's variable services.
///
/// All calls return the status that the guest gets. A change is durable when the call returns; one that fails changed
/// nothing.
pub struct VariableServices {
    store: NvramStore,
    phase: Phase,
    refusals: LogLimit,
}

impl VariableServices {
    /// The services over `storage`, which has `file`, or nothing yet. The variables that `secure_boot` says are set in
    /// memory, until [`synchronize`](Self::synchronize) or the first change.
    pub fn new(
        storage: Box<dyn NvramStorage>,
        file: Option<&[u8]>,
        secure_boot: &SecureBoot,
    ) -> Result<Self, VariableServicesError> {
        // Variables with malformed names, which some firmware wrote, cannot be got.
        let stored = Variables::decode(file.unwrap_or_default(), NameQuirk::Skip);
        let stored = stored.map_err(|source| {
            let place = storage.describe();
            VariableServicesError::Decode { place, source }
        })?;
        let variables = secure_boot.inject(stored.clone())?;
        let is_stale = variables != stored;
        Ok(Self {
            store: NvramStore::new(variables, storage, is_stale),
            phase: Phase::Boot,
            refusals: LogLimit::new(),
        })
    }

    /// All variables.
    pub fn variables(&self) -> &Variables {
        self.store.variables()
    }

    /// Who calls.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Where the variables are kept.
    pub fn place(&self) -> String {
        self.store.place()
    }

    /// Whether the storage has all variables.
    pub fn is_synchronized(&self) -> bool {
        self.store.is_synchronized()
    }

    /// How often the variables could not be stored.
    pub fn storage_failures(&self) -> u64 {
        self.store.failures()
    }

    /// Makes variables durable that were injected or restored.
    pub fn synchronize(&mut self) {
        self.store.synchronize();
    }

    /// The machine is reset: the firmware runs again, and volatile variables have their values of a new start.
    pub fn reset(&mut self) {
        self.phase = Phase::Boot;
        let mut variables = self.store.variables().clone();
        if SecureBoot::reset(&mut variables).is_ok() {
            self.store.replace(variables);
        }
    }

    /// The state to be saved.
    pub fn save(&self) -> NvramState {
        NvramState {
            phase: self.phase,
            variables: self.variables().encode(),
        }
    }

    /// Restores a saved state: its variables replace those of the storage. After an error nothing has changed.
    pub fn restore(&mut self, state: &NvramState) -> Result<(), VariablesDecodeError> {
        let variables = Variables::decode(&state.variables, NameQuirk::Refuse)?;
        self.store.replace(variables);
        self.phase = state.phase;
        Ok(())
    }

    /// ExitBootServices was called.
    pub fn exit_boot_services(&mut self) {
        self.phase = Phase::Runtime;
    }

    fn is_visible(&self, key: &VariableKey, variable: &Variable) -> bool {
        let is_in_phase = self.phase == Phase::Boot || variable.attributes & RUNTIME_ACCESS != 0;
        is_in_phase && !owners::is_hidden(key)
    }

    /// GetVariable.
    pub fn get(&self, key: &VariableKey) -> Result<&Variable, EfiStatus> {
        let variable = self.variables().get(key);
        variable
            .filter(|variable| self.is_visible(key, variable))
            .ok_or(EfiStatus::NOT_FOUND)
    }

    /// GetNextVariableName: the variable after `previous`, or the first one.
    pub fn next(&self, previous: Option<&VariableKey>) -> Result<&VariableKey, EfiStatus> {
        let is_visible =
            |(key, variable): &(&VariableKey, &Variable)| self.is_visible(key, variable);
        let next = match previous {
            None => self.variables().iter().find(is_visible),
            Some(previous) => {
                self.get(previous)
                    .map_err(|_| EfiStatus::INVALID_PARAMETER)?;
                self.variables().after(previous).find(is_visible)
            }
        };
        next.map(|(key, _)| key).ok_or(EfiStatus::NOT_FOUND)
    }

    /// QueryVariableInfo: bytes of the store, of what is free in it, and of the largest variable, for variables with these
    /// attributes.
    pub fn query_info(&self, attributes: u32) -> Result<StorageInfo, EfiStatus> {
        check_attributes(attributes)?;
        if attributes & ACCESS == 0 {
            return Err(EfiStatus::INVALID_PARAMETER);
        }
        if attributes & NON_VOLATILE == 0 {
            return Err(EfiStatus::UNSUPPORTED);
        }
        let used = self.variables().encoded_len();
        Ok(StorageInfo {
            maximum: MAX_TOTAL_LEN as u64,
            // Decoded and changed variables are never longer.
            remaining: MAX_TOTAL_LEN.saturating_sub(used) as u64,
            maximum_variable: MAX_DATA_LEN as u64,
        })
    }

    /// SetVariable.
    pub fn set(
        &mut self,
        key: &VariableKey,
        attributes: u32,
        data: &[u8],
    ) -> Result<(), EfiStatus> {
        // A name is its NUL at least.
        if key.name.as_bytes().len() <= 2 {
            return Err(EfiStatus::INVALID_PARAMETER);
        }
        check_attributes(attributes)?;
        let durable = RUNTIME_ACCESS | NON_VOLATILE;
        if self.phase == Phase::Runtime
            && attributes & ACCESS != 0
            && attributes & durable != durable
        {
            return Err(EfiStatus::INVALID_PARAMETER);
        }
        if policy::is_read_only(key) || owners::is_hidden(key) {
            return Err(EfiStatus::WRITE_PROTECTED);
        }
        let AuthenticatedCall {
            timestamp,
            data,
            owner,
        } = if attributes & TIME_BASED_AUTHENTICATED_WRITE_ACCESS != 0 {
            self.authenticate(key, attributes, data)?
        } else {
            AuthenticatedCall {
                timestamp: EfiTime::default(),
                data,
                owner: None,
            }
        };
        let operation = if attributes & ACCESS == 0 {
            Operation::Delete
        } else if attributes & APPEND_WRITE != 0 {
            Operation::Append
        } else if data.is_empty() {
            Operation::Delete
        } else {
            Operation::Set
        };
        self.check_existing(key, attributes, operation)?;
        let value = Variable {
            attributes: attributes & !APPEND_WRITE,
            timestamp,
            data: data.to_vec(),
        };
        self.store.change(|variables| {
            apply(variables, key, operation, value)?;
            if KeyVariable::of(key) == Some(KeyVariable::Pk) {
                SecureBoot::set_setup_mode(variables).map_err(|error| set_status(&error))?;
            }
            if let Some(owner) = owner {
                // The caller cannot know how long the list of owners is.
                Owners::set(variables, key, owner).map_err(|_| EfiStatus::OUT_OF_RESOURCES)?;
            }
            Ok(())
        })
    }

    /// What the call sets, if who signed it may set the variable.
    fn authenticate<'a>(
        &self,
        key: &VariableKey,
        attributes: u32,
        data: &'a [u8],
    ) -> Result<AuthenticatedCall<'a>, EfiStatus> {
        if data.is_empty() {
            return Err(EfiStatus::INVALID_PARAMETER);
        }
        let data = AuthenticatedData::decode(data).map_err(|error| self.refused(key, &error))?;
        if let Some(existing) = self.variables().get(key)
            && attributes & APPEND_WRITE == 0
            && !is_later(&data.timestamp, &existing.timestamp)
        {
            return Err(self.refused(key, &AuthenticationError::Old));
        }
        let owner = match KeyVariable::of(key) {
            Some(kind) => {
                check_signature_lists(kind, data.data)?;
                if let Some(authorities) = self.authorities(kind) {
                    let trusted: Vec<_> = authorities.iter().map(Vec::as_slice).collect();
                    data.signer(key, attributes)
                        .and_then(|signer| signer.require_trust(&trusted))
                        .map_err(|error| self.refused(key, &error))?;
                }
                None
            }
            None => {
                let signer = data.signer(key, attributes);
                let signer = signer.map_err(|error| self.refused(key, &error))?;
                let digest = Sha256::digest(signer.certificate()).into();
                if !self.may_own(key, &digest) {
                    return Err(self.refused(key, &AuthenticationError::Owner));
                }
                Some(digest)
            }
        };
        Ok(AuthenticatedCall {
            timestamp: data.timestamp,
            data: data.data,
            owner,
        })
    }

    /// Whether a private variable does not exist, or was created with this certificate.
    fn may_own(&self, key: &VariableKey, digest: &[u8; 32]) -> bool {
        let variables = self.variables();
        variables.get(key).is_none()
            || Owners::of(variables).is_some_and(|owners| owners.get(key) == Some(digest))
    }

    /// The certificates of those who may set variables of this kind; `None` if everybody may: in setup mode.
    fn authorities(&self, kind: KeyVariable) -> Option<Vec<Vec<u8>>> {
        let pk = self.variables().get(&policy::key(GLOBAL_VARIABLE, "PK"))?;
        let kek = match kind {
            KeyVariable::Pk | KeyVariable::Kek => None,
            KeyVariable::Database => self.variables().get(&policy::key(GLOBAL_VARIABLE, "KEK")),
        };
        let variables = kek.into_iter().chain([pk]);
        // A malformed list, which cannot be set here, gives nobody a right.
        let lists = variables.flat_map(|v| signature_lists(&v.data).unwrap_or_default());
        let certificates = lists
            .filter(|list| list.kind == CERT_X509)
            .flat_map(|list| list.signatures);
        Some(certificates.map(|signature| signature.data).collect())
    }

    fn refused(&self, key: &VariableKey, error: &(dyn Error + 'static)) -> EfiStatus {
        if let Some(suppressed) = self.refusals.allow() {
            tracing::warn!(
                name = %key.name,
                vendor = %key.vendor,
                error,
                suppressed,
                "the guest may not set an authenticated UEFI variable"
            );
        }
        EfiStatus::SECURITY_VIOLATION
    }

    /// Whether the operation fits the variable as it is.
    fn check_existing(
        &self,
        key: &VariableKey,
        attributes: u32,
        operation: Operation,
    ) -> Result<(), EfiStatus> {
        let existing = self.variables().get(key);
        if let Some(existing) = existing {
            let is_plain = existing.attributes & TIME_BASED_AUTHENTICATED_WRITE_ACCESS == 0;
            let is_plain_delete =
                operation == Operation::Delete && attributes & ACCESS == 0 && is_plain;
            let differ = (existing.attributes ^ attributes) & !APPEND_WRITE != 0;
            if differ && !is_plain_delete {
                return Err(EfiStatus::INVALID_PARAMETER);
            }
        } else if KeyVariable::of(key).is_some()
            && operation != Operation::Delete
            && attributes & TIME_BASED_AUTHENTICATED_WRITE_ACCESS == 0
        {
            // Keys that anybody could set would be none.
            return Err(EfiStatus::INVALID_PARAMETER);
        }
        let is_volatile = attributes & NON_VOLATILE == 0;
        let is_settable = operation == Operation::Set && policy::is_settable_volatile(key);
        if operation != Operation::Delete && is_volatile && !is_settable {
            return Err(EfiStatus::UNSUPPORTED);
        }
        match existing {
            Some(existing) if !self.is_visible(key, existing) => Err(match operation {
                Operation::Set => EfiStatus::WRITE_PROTECTED,
                Operation::Append | Operation::Delete => EfiStatus::NOT_FOUND,
            }),
            None if operation == Operation::Delete => Err(EfiStatus::NOT_FOUND),
            _ => Ok(()),
        }
    }
}

/// What QueryVariableInfo answers, in bytes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct StorageInfo {
    /// Of the store.
    pub maximum: u64,
    /// That are free.
    pub remaining: u64,
    /// Of the largest variable.
    pub maximum_variable: u64,
}

/// Why an authenticated variable may not be set, beside what is wrong with the signature.
#[derive(Debug, thiserror::Error)]
enum AuthenticationError {
    #[error("what the variable has was signed later")]
    Old,
    #[error("another key created the variable")]
    Owner,
}

/// What an authenticated call sets.
struct AuthenticatedCall<'a> {
    timestamp: EfiTime,
    data: &'a [u8],
    /// The digest of the certificate of who owns a private variable.
    owner: Option<[u8; 32]>,
}

#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Operation {
    Set,
    Append,
    Delete,
}

fn check_attributes(attributes: u32) -> Result<(), EfiStatus> {
    let has = |bits: u32| attributes & bits == bits;
    if attributes & !KNOWN_ATTRIBUTES != 0
        || (has(RUNTIME_ACCESS) && !has(BOOTSERVICE_ACCESS))
        || has(TIME_BASED_AUTHENTICATED_WRITE_ACCESS | ENHANCED_AUTHENTICATED_ACCESS)
    {
        return Err(EfiStatus::INVALID_PARAMETER);
    }
    let unsupported =
        HARDWARE_ERROR_RECORD | AUTHENTICATED_WRITE_ACCESS | ENHANCED_AUTHENTICATED_ACCESS;
    if attributes & unsupported != 0 {
        return Err(EfiStatus::UNSUPPORTED);
    }
    Ok(())
}

/// Checks what a variable of keys is to be set to, or what is to be appended.
fn check_signature_lists(kind: KeyVariable, data: &[u8]) -> Result<(), EfiStatus> {
    let lists = signature_lists(data).map_err(|_| EfiStatus::INVALID_PARAMETER)?;
    let is_well_formed = |list: &SignatureList| {
        let len = list.signatures.first().map(|first| first.data.len());
        list.kind != CERT_SHA256 || len.is_none_or(|len| len == 48 - SIGNATURE_OWNER_LEN)
    };
    // One key is the platform's, or none if the data is empty.
    let is_one_key = || match &lists[..] {
        [] => true,
        [list] => list.kind == CERT_X509 && list.signatures.len() == 1,
        _ => false,
    };
    if lists.iter().all(is_well_formed) && (kind != KeyVariable::Pk || is_one_key()) {
        Ok(())
    } else {
        Err(EfiStatus::INVALID_PARAMETER)
    }
}

/// Carries out an operation that was checked.
fn apply(
    variables: &mut Variables,
    key: &VariableKey,
    operation: Operation,
    value: Variable,
) -> Result<(), EfiStatus> {
    let value = match operation {
        Operation::Delete => {
            variables.remove(key);
            return Ok(());
        }
        Operation::Set => value,
        Operation::Append if value.data.is_empty() => return Ok(()),
        Operation::Append => match variables.get(key) {
            Some(existing) => appended(key, existing, value)?,
            None => value,
        },
    };
    variables
        .set(key.clone(), value)
        .map_err(|error| match (operation, &error) {
            // The caller cannot know how long the variable gets.
            (Operation::Append, SetError::DataTooLong(_)) => EfiStatus::OUT_OF_RESOURCES,
            _ => set_status(&error),
        })
}

fn set_status(error: &SetError) -> EfiStatus {
    match error {
        SetError::NameTooLong(_) | SetError::DataTooLong(_) => EfiStatus::INVALID_PARAMETER,
        SetError::OutOfSpace(_) => EfiStatus::OUT_OF_RESOURCES,
    }
}

/// `existing` with the data of `new` appended, without the signatures that a variable of keys has already.
fn appended(key: &VariableKey, existing: &Variable, new: Variable) -> Result<Variable, EfiStatus> {
    let mut data = existing.data.clone();
    if KeyVariable::of(key).is_some() {
        // Only the guest's new data was checked: the variable may be an imported one.
        let old = signature_lists(&data).map_err(|_| EfiStatus::SECURITY_VIOLATION)?;
        let lists = signature_lists(&new.data).map_err(|_| EfiStatus::INVALID_PARAMETER)?;
        for mut list in lists {
            let is_known = |signature: &SignatureData| {
                let mut of_kind = old.iter().filter(|known| known.kind == list.kind);
                of_kind.any(|known| known.signatures.contains(signature))
            };
            let new: Vec<_> = list
                .signatures
                .iter()
                .filter(|signature| !is_known(signature))
                .cloned()
                .collect();
            if !new.is_empty() {
                list.signatures = new;
                data.extend(list.encode());
            }
        }
    } else {
        data.extend(new.data);
    }
    let timestamp = if is_later(&new.timestamp, &existing.timestamp) {
        new.timestamp
    } else {
        existing.timestamp
    };
    Ok(Variable {
        attributes: existing.attributes,
        timestamp,
        data,
    })
}

#[cfg(test)]
#[path = "services_test.rs"]
mod tests;
