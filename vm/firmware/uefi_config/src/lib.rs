//! The configuration blob of Hyper-V's UEFI firmware (MSVM): what the firmware is told of its machine.
//!
//! [`UefiConfig::encode`] makes the bytes, which go into guest memory behind the firmware's image. The blob is a row of
//! structures, each with its type and length; the first tells how many there are and how long they are together. The
//! firmware stops at a blob that is not as it expects, so everything that it checks is checked here first.
#![forbid(unsafe_code)]

mod acpi;
mod blob;
mod config;
mod encode;
mod error;
mod flags;
mod smbios;
mod structure;

pub use blob::BlobError;
pub use blob::RawStructure;
pub use blob::replace_entropy;
pub use blob::structures;
pub use config::ENTROPY_LEN;
pub use config::GicBases;
pub use config::MemoryEntry;
pub use config::MemoryUse;
pub use config::PcieApertures;
pub use config::ProcessorCounts;
pub use config::UefiConfig;
pub use error::ConfigError;
pub use flags::ConsoleMode;
pub use flags::MemoryProtection;
pub use flags::UefiFlags;
pub use smbios::ProcessorStrings;
pub use smbios::SmbiosProcessor;
pub use smbios::SmbiosStrings;
pub use structure::StructureType;
