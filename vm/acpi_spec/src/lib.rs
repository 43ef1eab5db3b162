//! ACPI tables built for the machine that the configuration describes.
//!
//! [`TableSet::new`] turns a [`Machine`] into tables, and [`TableSet::place`] gives them their addresses.
//! Both are pure functions: the same machine at the same address is the same bytes, so that a guest that
//! resumes from its disk finds the firmware view it went to sleep on.
#![forbid(unsafe_code)]

mod dsdt;
mod error;
mod fadt;
mod machine;
mod madt;
mod root;
mod table;
mod table_set;

pub use error::BuildError;
pub use machine::ComPort;
pub use machine::Hibernation;
pub use machine::InterruptControllers;
pub use machine::Machine;
pub use machine::MmioWindows;
pub use machine::Processor;
pub use machine::Ps2Controller;
pub use machine::Rtc;
pub use table::ChecksumField;
pub use table::Pointer;
pub use table::Table;
pub use table_set::PlacedTables;
pub use table_set::REGION_SIZE;
pub use table_set::REGION_VERSION;
pub use table_set::TableSet;

#[cfg(test)]
mod iasl_test;
