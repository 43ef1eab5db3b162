//! The I/O port to which a guest's ACPI methods report that it prepares to sleep and that it woke.
#![forbid(unsafe_code)]

mod announcement;
mod device;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod handle;

pub use announcement::PREPARE;
pub use announcement::SleepAnnouncement;
pub use announcement::SleepState;
pub use announcement::WAKE;
pub use device::AnnouncementSink;
pub use device::SleepPort;
pub use handle::SleepPortHandle;
