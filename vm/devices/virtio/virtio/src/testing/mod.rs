//! A machine and a driver for the tests of device types.

mod driver;
mod exercise;
mod machine;
mod ring;

pub use driver::GuestDriver;
pub use driver::Interrupts;
pub use exercise::exercise;
pub use machine::MirrorDevice;
pub use machine::TestMachine;
pub use ring::Ring;
