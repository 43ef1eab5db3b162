//! Running openvmm as a user does, and watching what it and its guest do: the ground that end-to-end
//! tests and measurements stand on.
#![forbid(unsafe_code)]

mod dice;
mod environment;
mod event;
mod exit;
mod flood;
mod hibernation;
mod killed_session;
mod machine;
mod network;
pub mod payload;
mod session;
mod terminal;
mod vm;
mod watch;

pub use dice::Dice;
pub use environment::Environment;
pub use environment::Ovmf;
pub use environment::Share;
pub use event::Event;
pub use exit::Exit;
pub use flood::bare_flood;
pub use hibernation::HibernationStatus;
pub use killed_session::KilledSession;
pub use machine::Disk;
pub use machine::UefiMachine;
pub use network::Tap;
pub use session::Session;
pub use session::parse_clock;
pub use vm::Stdio;
pub use vm::Vm;
pub use vm::VmBuilder;
