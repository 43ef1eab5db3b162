//! The command line and the interactive console of openvmm.
#![forbid(unsafe_code)]

mod cli;
mod console;
mod control;
mod events;
mod exit;
mod head_start;
mod hibernation;
mod log;
mod program;
mod run;
mod terminal;

pub use program::main;
