//! The backend on a real `/dev/kvm`: small guests that make one thing happen each. They fail where there is none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clock;
mod code;
mod exits;
mod interrupts;
mod kick;
mod machine;
mod memory;
mod nested;
mod state;
