//! The parts of a running machine that every VMM front end shares: VP threads, state units of the partition, the devices
//! and the clock, the bus, and power requests.
#![forbid(unsafe_code)]

mod bus;
mod enlightenment;
mod power;
mod targets;
mod units;
mod vps;

pub use bus::MachineBus;
pub use enlightenment::EnlightenmentUnit;
pub use power::PowerLatch;
pub use targets::PartitionRom;
pub use targets::PartitionRouting;
pub use units::ClockUnit;
pub use units::DeviceUnit;
pub use units::PartitionUnit;
pub use units::VpsUnit;
pub use vps::BindingVps;
pub use vps::VpError;
pub use vps::VpGate;
pub use vps::VpReport;
pub use vps::VpSet;
