//! The ACPI fixed hardware: power management events, sleep states, reset, and the PM timer.

mod device;
mod registers;

pub use device::PmControl;
pub use device::PmDevice;
pub use registers::PM_BLOCK_LENGTH;

#[cfg(test)]
mod device_test;
