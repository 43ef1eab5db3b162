//! UEFI's variable services: what firmware on the host's side answers to GetVariable and SetVariable, with the
//! authentication of Secure Boot's variables, over a durable store.
//!
//! [`VariableServices`] follows the UEFI specification 2.10, section 8.2. [`SecureBoot`] is what a new VM's variables
//! are made from.
#![forbid(unsafe_code)]

mod authentication;
mod custom;
mod owners;
mod pkcs7;
mod policy;
mod secure_boot;
mod services;
mod storage;
mod store;
mod template;
#[cfg(test)]
mod test_keys;

pub use custom::CustomVariables;
pub use custom::CustomVariablesError;
pub use pkcs7::Pkcs7Error;
pub use pkcs7::Signer;
pub use pkcs7::verify_detached;
pub use secure_boot::InjectedVariable;
pub use secure_boot::SecureBoot;
pub use secure_boot::SecureBootKeys;
pub use secure_boot::Signature;
pub use services::NvramState;
pub use services::Phase;
pub use services::VariableServices;
pub use services::VariableServicesError;
pub use storage::MemoryNvram;
pub use storage::NvramStorage;
pub use storage::NvramStorageError;
pub use storage::VmgsNvram;
pub use storage::VmgsNvramError;
pub use template::SecureBootTemplate;
pub use template::UnknownTemplate;
