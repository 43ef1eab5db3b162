//! ACPI tables built for the machine that the configuration describes.
//!
//! [`TableSet::new`] turns a [`Machine`] into tables. [`TableSet::place`] gives them their addresses;
//! [`TableSet::loader_files`] leaves that to a firmware which runs a table-loader script. All are pure
//! functions: the same machine at the same address is the same bytes, so that a guest that resumes from its
//! disk finds the firmware view it went to sleep on.
#![forbid(unsafe_code)]

mod dsdt;
mod error;
mod fadt;
mod generation_id;
mod loader;
mod machine;
mod madt;
mod pci;
mod root;
mod sleep;
mod table;
mod table_set;

pub use error::BuildError;
pub use generation_id::GENERATION_ID_OFFSET;
pub use loader::GENERATION_ID_ADDRESS_FILE;
pub use loader::GENERATION_ID_ADDRESS_LEN;
pub use loader::GENERATION_ID_FILE;
pub use loader::LoaderFile;
pub use loader::RSDP_FILE;
pub use loader::SCRIPT_FILE;
pub use loader::TABLES_FILE;
pub use machine::ComPort;
pub use machine::Hibernation;
pub use machine::InterruptControllers;
pub use machine::Machine;
pub use machine::MmioWindows;
pub use machine::PciRoot;
pub use machine::PmLayout;
pub use machine::Processor;
pub use machine::Ps2Controller;
pub use machine::ResetRegister;
pub use machine::Rtc;
pub use machine::SleepAnnouncements;
pub use table::ChecksumField;
pub use table::Pointer;
pub use table::Table;
pub use table_set::PlacedTables;
pub use table_set::REGION_SIZE;
pub use table_set::REGION_VERSION;
pub use table_set::TableSet;

#[cfg(test)]
mod iasl_test;
#[cfg(test)]
mod loader_test;
