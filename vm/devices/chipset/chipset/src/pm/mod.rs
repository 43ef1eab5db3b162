//! The ACPI fixed hardware: power management events, sleep states, reset, and the PM timer.

mod device;
mod registers;

pub use device::PmControl;
pub use device::PmDevice;
pub use registers::PM_BLOCK_LENGTH;
pub use registers::PmLayout;
pub use registers::RESET_OFFSET;
pub use registers::RESET_VALUE;

#[cfg(test)]
mod device_test;
