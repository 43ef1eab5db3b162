//! The guest's side: what a machine and a driver do, for the tests of device types.

mod driver;
mod exercise;
mod machine;
mod ring;

pub use driver::Driver;
pub use driver::Interrupts;
pub use exercise::exercise;
pub use machine::Machine;
pub use machine::MirrorDevice;
pub use ring::Ring;
