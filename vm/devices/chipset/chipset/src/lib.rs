//! The small fixed-function devices of a PC chipset: RTC, PM block, i8042, debug port, pvpanic, IOAPIC.
#![forbid(unsafe_code)]

pub mod debug_port;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod handle;
pub mod i8042;
pub mod ioapic;
pub mod pm;
pub mod pvpanic;
pub mod rtc;

pub use handle::DebugPortHandle;
pub use handle::I8042Handle;
pub use handle::IoApicHandle;
pub use handle::PmHandle;
pub use handle::PvPanicHandle;
pub use handle::RtcHandle;
