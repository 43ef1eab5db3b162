//! Guest time: a clock that is stopped while the VM is stopped, and timers on it.
#![forbid(unsafe_code)]

mod clock;
mod instant;
mod queue;
mod timer;

pub use clock::ManualTime;
pub use clock::VmClock;
pub use instant::VmInstant;
pub use timer::VmTimer;
