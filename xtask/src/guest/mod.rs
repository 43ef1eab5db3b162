//! `cargo xtask guest`, and the guest that tests and measurements boot: Debian's kernel, a small initramfs that the
//! kernel's command line or the serial console drives, and firmware.

mod file;
mod initramfs;

pub(crate) use file::GuestFile;
pub(crate) use initramfs::initramfs;

use crate::setup;
use anyhow::Context;
use clap::Args;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make the files of the guest that tests boot, for running it by hand.
///
/// Overwrites what DIR holds of them.
#[derive(Args)]
pub(crate) struct GuestArgs {
    /// Where to put them.
    dir: PathBuf,
}

pub(crate) fn run(args: &GuestArgs) -> anyhow::Result<ExitCode> {
    let fetched = setup::ensure()?;
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot create {}", args.dir.display()))?;
    for file in GuestFile::ALL {
        let path = args.dir.join(file.name());
        if path.is_symlink() || path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        file.make(&fetched, &args.dir)?;
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
