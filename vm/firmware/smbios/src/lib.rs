//! SMBIOS structures (DMTF DSP0134, version 3.0) for a described machine.
//!
//! [`Description::build`] is a pure function: the same description is the same bytes.
#![forbid(unsafe_code)]

mod build;
mod description;
mod error;
mod structure;

pub use build::ANCHOR_FILE;
pub use build::Smbios;
pub use build::TABLES_FILE;
pub use description::Baseboard;
pub use description::Chassis;
pub use description::Description;
pub use description::Firmware;
pub use description::Processor;
pub use description::System;
pub use description::Uuid;
pub use error::BuildError;
pub use structure::MAX_TEXT_LEN;

#[cfg(test)]
mod build_test;
