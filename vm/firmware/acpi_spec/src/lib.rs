//! ACPI tables for a platform.
//!
//! [`TableSet::new`] builds the tables of an [`AcpiPlatform`]. [`TableSet::place`] assigns their addresses;
//! [`TableSet::loader_files`] leaves that to firmware that runs a table-loader script. All are pure functions:
//! the same platform at the same address gives the same bytes, so that a guest that resumes from its disk finds
//! the tables it hibernated with.
#![forbid(unsafe_code)]

mod dsdt;
mod error;
mod fadt;
mod generation_2;
mod generation_id;
mod loader;
mod madt;
mod pci;
mod platform;
mod root;
mod sleep;
mod table;
mod table_set;

pub use error::AcpiError;
pub use generation_2::generation_2_tables;
pub use generation_id::GENERATION_ID_OFFSET;
pub use loader::GENERATION_ID_ADDRESS_FILE;
pub use loader::GENERATION_ID_ADDRESS_LEN;
pub use loader::GENERATION_ID_FILE;
pub use loader::LoaderFile;
pub use loader::RSDP_FILE;
pub use loader::SCRIPT_FILE;
pub use loader::TABLES_FILE;
pub use platform::AcpiPlatform;
pub use platform::ComPort;
pub use platform::InterruptControllers;
pub use platform::MmioWindows;
pub use platform::PciRoot;
pub use platform::Processor;
pub use platform::Ps2Controller;
pub use platform::ResetRegister;
pub use platform::RtcResources;
pub use platform::S4Support;
pub use platform::SleepAnnouncements;
pub use table::ChecksumField;
pub use table::Pointer;
pub use table::Table;
pub use table_set::PlacedTables;
pub use table_set::REGION_SIZE;
pub use table_set::REGION_VERSION;
pub use table_set::TableSet;
