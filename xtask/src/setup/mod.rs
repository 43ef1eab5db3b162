//! `cargo xtask setup`: installs and downloads what the other commands need.

mod apt;
mod kernel;
mod needs;

pub(crate) use kernel::Kernel;
pub(crate) use needs::Need;
pub(crate) use needs::missing;

use clap::Args;
use std::process::ExitCode;

/// Install the programs that demo, test and bench use, and fetch the kernel they boot.
///
/// Uses apt-get (through sudo unless run as root). Quick when nothing is missing; the other commands
/// call it by themselves.
#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Fetch the newest kernel package even if one is there.
    #[arg(long)]
    update: bool,
}

pub(crate) fn run(args: &SetupArgs) -> anyhow::Result<ExitCode> {
    install_programs()?;
    let kernel = if args.update {
        Kernel::fetch()?
    } else {
        Kernel::ensure()?
    };
    println!("programs: complete");
    println!(
        "kernel:   {} in {}",
        kernel.release()?,
        kernel.dir.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Makes the machine complete, and returns the kernel to boot.
pub(crate) fn ensure() -> anyhow::Result<Kernel> {
    install_programs()?;
    Kernel::ensure()
}

fn install_programs() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        eprintln!("setup: missing {} ({})", need.what, need.package);
    }
    apt::install(&needs::packages(&missing))?;
    let still = needs::missing();
    anyhow::ensure!(
        still.is_empty(),
        "apt-get succeeded, but these are still missing: {}",
        still
            .iter()
            .map(|need| need.what)
            .collect::<Vec<_>>()
            .join(", ")
    );
    Ok(())
}

/// The line that a person would type to install `missing`.
pub(crate) fn apt_line(missing: &[&Need]) -> String {
    apt::install_line(&needs::packages(missing))
}
