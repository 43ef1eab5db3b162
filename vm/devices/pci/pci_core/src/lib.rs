//! The configuration space of a conventional PCI function, as a part of the device that has it.
//!
//! A device builds a [`PciFunction`] from its ids, BARs, capabilities and interrupts with a
//! [`FunctionBuilder`], and forwards the accesses to its configuration space. The function tells the
//! chipset which addresses its enabled BARs decode, says for each guest-physical address which BAR and
//! offset it is, and delivers interrupts by INTx or MSI-X, whichever the guest chose.
//!
//! It implements the type 0 header and the capability list of the PCI Local Bus Specification 3.0,
//! sections 6.1, 6.2, 6.7 and (MSI-X) 6.8.2.
#![forbid(unsafe_code)]

mod bar;
mod builder;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod function;
mod ids;
mod msix;
#[cfg(any(test, feature = "fuzzing"))]
mod recorder;
mod registers;

pub use bar::Bar;
pub use builder::FunctionBuilder;
pub use builder::LayoutError;
pub use function::ConfigChange;
pub use function::FunctionState;
pub use function::Location;
pub use function::PciFunction;
pub use ids::ClassCode;
pub use ids::HardwareIds;
pub use msix::MsixInterrupt;
pub use msix::MsixLayout;
pub use msix::MsixRegister;
pub use msix::MsixState;
#[cfg(any(test, feature = "fuzzing"))]
pub use recorder::MsiRecorder;

#[cfg(test)]
mod function_test;
#[cfg(test)]
mod msix_test;
