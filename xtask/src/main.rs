//! Developer commands: `cargo xtask help`.
#![forbid(unsafe_code)]

mod build;
mod host_kvm;
mod lab;
mod process;
mod setup;
mod workspace;

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, runs, tests and measures openvmm"
)]
enum Xtask {
    Setup(setup::SetupArgs),
    Lab(lab::LabArgs),
}

fn main() -> ExitCode {
    let result = match Xtask::parse() {
        Xtask::Setup(args) => setup::run(&args),
        Xtask::Lab(args) => lab::run(args),
    };
    result.unwrap_or_else(|err| {
        eprintln!("error: {err:#}");
        ExitCode::FAILURE
    })
}
