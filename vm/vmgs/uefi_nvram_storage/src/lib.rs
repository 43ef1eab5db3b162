//! UEFI variables as the file `BIOS_NVRAM` of a VMGS store holds them, and decoders for the structures
//! in well-known variables.
//!
//! [`Variables`] is the content of the file. Decoding and encoding it again changes only the order of
//! the entries. The structures (load options, device paths, signature lists) are those of the UEFI
//! specification, sections 3.1.3, 10 and 32.4.1.
#![forbid(unsafe_code)]

mod load_option;
mod name;
mod signature;
mod variables;

pub use load_option::DevicePathNode;
pub use load_option::LoadOption;
pub use load_option::LoadOptionError;
pub use load_option::boot_option_number;
pub use load_option::boot_order;
pub use name::Name;
pub use signature::SignatureData;
pub use signature::SignatureList;
pub use signature::SignatureListError;
pub use signature::signature_lists;
pub use uefi_specs::EfiTime;
pub use uefi_specs::guid;
pub use variables::MAX_DATA_LEN;
pub use variables::MAX_NAME_LEN;
pub use variables::MAX_TOTAL_LEN;
pub use variables::NameQuirk;
pub use variables::SetError;
pub use variables::Variable;
pub use variables::VariableKey;
pub use variables::Variables;
pub use variables::VariablesDecodeError;
