//! The ACPI fixed hardware: power management events, sleep states, and the PM timer.

mod device;
mod registers;

pub use device::PmControl;
pub use device::PmDevice;
pub use registers::PmLayout;
