//! SMBIOS structures (DMTF DSP0134, version 3.0) for the description of a machine.
//!
//! [`Description::build`] is a pure function: the same description gives the same bytes.
#![forbid(unsafe_code)]

mod build;
mod description;
mod error;
mod structure;

pub use build::ANCHOR_FILE;
pub use build::Smbios;
pub use build::TABLES_FILE;
pub use description::BaseboardInformation;
pub use description::BiosInformation;
pub use description::Chassis;
pub use description::Description;
pub use description::MAX_TEXT_LEN;
pub use description::ProcessorInformation;
pub use description::SystemInformation;
pub use error::SmbiosError;
