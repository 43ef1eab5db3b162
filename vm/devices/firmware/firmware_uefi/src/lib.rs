//! The device through which Hyper-V's UEFI firmware asks its host for services: variables, its log, boot events, a
//! watchdog, the generation ID, time and random numbers.
#![forbid(unsafe_code)]

mod clock;
mod device;
mod diagnostics;
mod event_log;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod guest;
mod handle;
mod log_text;
mod nvram;
mod platform;
mod random;
mod watchdog;

pub use device::FirmwareUefi;
pub use diagnostics::LogLevel;
pub use handle::FirmwareUefiHandle;
pub use handle::NvramPlace;
pub use platform::BootOutcome;
pub use platform::FirmwareControl;
pub use platform::FirmwareReport;
pub use platform::FirmwareReportSink;
pub use platform::Platform;
