//! The small fixed-function devices of a PC chipset: RTC, PM block, i8042, debug port, pvpanic, IOAPIC.
#![forbid(unsafe_code)]

pub mod debug_port;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
pub mod i8042;
pub mod ioapic;
pub mod pm;
pub mod pvpanic;
pub mod rtc;
