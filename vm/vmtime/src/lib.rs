//! Guest time: a clock that stands still while the VM is stopped, and timers on it.
#![forbid(unsafe_code)]
