//! Runs openvmm as a user does and observes it and its guest, for end-to-end tests and measurements.
#![forbid(unsafe_code)]

mod environment;
mod event;
mod exit;
mod flood;
mod hibernation;
mod igvm;
mod killed_session;
mod machine;
mod network;
pub mod payload;
mod session;
mod terminal;
mod vm;
mod watch;

pub use environment::Environment;
pub use environment::OvmfBuild;
pub use event::JsonEvent;
pub use exit::OpenvmmExit;
pub use flood::bare_flood;
pub use hibernation::HibernationStatus;
pub use igvm::MadeIgvm;
pub use killed_session::KilledSession;
pub use killed_session::random_time;
pub use machine::DiskFile;
pub use machine::UefiMachine;
pub use network::HostTap;
pub use session::GuestSession;
pub use session::parse_clock;
pub use vm::Stdio;
pub use vm::Vm;
pub use vm::VmBuilder;
