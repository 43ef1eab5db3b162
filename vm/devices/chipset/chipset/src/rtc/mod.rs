//! The real-time clock and CMOS RAM (Motorola MC146818 data sheet).

mod battery;
mod calendar;
mod cmos;
mod device;

pub use battery::KeptClock;
pub use battery::RtcBattery;
pub use cmos::CMOS_SIZE;
pub use cmos::cmos_for_memory;
pub use device::Rtc;
pub use device::WallClock;
