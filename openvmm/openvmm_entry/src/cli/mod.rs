//! The command line.

mod actions;
mod choice;
mod config;
mod files;
mod firmware;
mod hyperv_uefi;
mod identity;
mod igvm;
mod memory;
mod net;
mod options;
mod pci;
mod restore;
mod secure_boot;
mod serial;
mod size;
pub(crate) mod unsupported;
mod vmgs;
mod vmgs_key;

pub(crate) use config::ConsoleMode;
pub(crate) use config::EventsTarget;
pub(crate) use config::Invocation;
pub(crate) use options::CliCommand;
pub(crate) use options::HibernationCommand;
pub(crate) use options::Options;
pub(crate) use options::SnapshotCommand;
pub(crate) use vmgs_key::KeySource;
