//! The I/O APIC, for hypervisors that emulate only the local APICs.

mod core;
mod device;

pub use core::IoApicRouting;
pub use core::PINS;
pub use device::IoApic;
pub use device::IoApicPins;
