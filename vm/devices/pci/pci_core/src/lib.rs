//! The configuration space of a conventional PCI function, for use by the device that owns it.
//!
//! A device builds a [`PciFunction`] from its ids, BARs, capabilities and interrupts with a
//! [`FunctionBuilder`], and forwards the accesses to its configuration space. The function reports the
//! ranges that its enabled BARs decode to the chipset, translates guest-physical addresses to BARs and
//! offsets, and delivers interrupts by INTx or MSI-X, whichever the guest enabled.
//!
//! It implements the type 0 header and the capability list of the PCI Local Bus Specification 3.0,
//! sections 6.1, 6.2, 6.7 and (MSI-X) 6.8.2.
#![forbid(unsafe_code)]

mod bar;
mod builder;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod function;
mod ids;
mod msix;
mod msix_layout;
#[cfg(any(test, feature = "fuzzing"))]
mod recorder;
mod registers;

pub use bar::Bar;
pub use builder::FunctionBuilder;
pub use error::PciLayoutError;
pub use function::FunctionState;
pub use function::Location;
pub use function::PciFunction;
pub use ids::ClassCode;
pub use ids::HardwareIds;
pub use msix::MsixInterrupt;
pub use msix::MsixRegister;
pub use msix::MsixState;
pub use msix_layout::MsixLayout;
#[cfg(any(test, feature = "fuzzing"))]
pub use recorder::MsiRecorder;
