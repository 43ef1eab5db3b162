//! `cargo xtask mutants`: which changes of the code no test notices.

use crate::process;
use crate::workspace;
use anyhow::Context;
use anyhow::bail;
use clap::Args;
use std::process::Command;
use std::process::ExitCode;

/// The crates that keep a hibernated guest's session.
const CRATES: [&str; 4] = ["vmgs", "firmware_hibernation", "flash", "openvmm_core"];

/// Change the code in many ways, and list the changes that no test notices (cargo-mutants).
///
/// Without --crate: the store, hibernation, flash and the worker, which takes hours. Results are in target/mutants. Runs one
/// build at a time; each change is built and tested in a copy of the workspace.
#[derive(Args)]
pub(crate) struct MutantsArgs {
    /// A crate to change (default: vmgs, firmware_hibernation, flash and openvmm_core).
    #[arg(long = "crate", value_name = "CRATE")]
    crates: Vec<String>,
    /// Options of cargo-mutants, such as --file, --re, --shard or --timeout.
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
}

pub(crate) fn run(args: &MutantsArgs) -> anyhow::Result<ExitCode> {
    if process::find("cargo-mutants").is_none() {
        bail!(
            "cargo-mutants is not installed; install it with: cargo install --locked cargo-mutants"
        );
    }
    let mut command = command(args);
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", process::shown(&command)))?;
    // 2: some changes were not noticed; 3: some tests did not end. Both are listed.
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

fn command(args: &MutantsArgs) -> Command {
    let mut command = workspace::cargo();
    command.args(["mutants", "--jobs", "1", "--output", "target/mutants"]);
    let default = CRATES.map(str::to_owned);
    let crates = match &args.crates[..] {
        [] => &default[..],
        crates => crates,
    };
    for name in crates {
        command.args(["--package", name]);
    }
    command.args(&args.options);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_and_the_options_are_passed_on() {
        let shown = |crates: &[&str], options: &[&str]| {
            let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let command = command(&MutantsArgs {
                crates: own(crates),
                options: own(options),
            });
            let args: Vec<_> = command
                .get_args()
                .map(|arg| arg.to_string_lossy())
                .collect();
            args.join(" ")
        };
        assert_eq!(
            shown(&[], &[]),
            "mutants --jobs 1 --output target/mutants --package vmgs \
             --package firmware_hibernation --package flash --package openvmm_core"
        );
        assert_eq!(
            shown(&["vmgs"], &["--timeout", "60"]),
            "mutants --jobs 1 --output target/mutants --package vmgs --timeout 60"
        );
    }
}
