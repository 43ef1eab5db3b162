//! The small fixed-function devices of a PC chipset: RTC, PM block, i8042, debug port, IOAPIC.
#![forbid(unsafe_code)]

pub mod pm;
pub mod rtc;
