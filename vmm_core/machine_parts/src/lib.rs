//! The parts of a running machine that every VMM front end shares: VP threads, the machine's life from power-on to halt,
//! state units of the partition, the devices and the clock, and the bus.
#![forbid(unsafe_code)]

mod bus;
mod enlightenment;
mod host_units;
mod lifecycle;
mod report;
mod run_control;
mod targets;
#[cfg(test)]
mod test_support;
mod units;
mod vps;

pub use bus::MachineBus;
pub use enlightenment::EnlightenmentUnit;
pub use host_units::SerialUnit;
pub use host_units::VmgsUnit;
pub use lifecycle::AfterEnd;
pub use lifecycle::AfterGuest;
pub use lifecycle::Change;
pub use lifecycle::Ending;
pub use lifecycle::Guest;
pub use lifecycle::HaltReason;
pub use lifecycle::Lifecycle;
pub use lifecycle::LifecycleError;
pub use lifecycle::LifecycleEvent;
pub use lifecycle::MachineState;
pub use report::Report;
pub use report::ReportKind;
pub use run_control::RunControl;
pub use run_control::RunId;
pub use targets::PartitionRom;
pub use targets::PartitionRouting;
pub use units::ClockUnit;
pub use units::PartitionUnit;
pub use units::SavedProcessor;
pub use units::VpsUnit;
pub use units::saved_processor;
pub use vps::BindingVps;
pub use vps::VpError;
pub use vps::VpSet;
