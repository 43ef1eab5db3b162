//! The command line and the interactive console of openvmm.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod actions;
mod cli;
mod console;
mod control;
mod control_socket;
mod events;
mod exit;
mod head_start;
mod hibernation;
mod limits;
mod log;
mod message;
mod pidfile;
mod program;
mod run;
mod snapshot;
mod terminal;

pub use program::main;
