//! `cargo xtask guest`, and the guest that tests and measurements boot: Debian's kernel, a small initramfs that executes
//! commands from the kernel's command line and the serial console, firmware, a bootable disk with all of that, and one with an
//! installation of Debian.

mod boot_disk;
mod file;
mod initramfs;
mod installed_disk;
mod partitions;
pub(crate) mod test_firmware;
mod unified_kernel;

pub(crate) use file::GuestFile;
pub(crate) use initramfs::SESSION_SCRIPT;

use crate::setup;
use anyhow::Context;
use clap::Args;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make the files of the guest that tests boot, to run it by hand.
///
/// vmlinuz and initrd, and the same of Debian 13 as vmlinuz-13 and initrd-13; OVMF_*.fd, three builds of UEFI firmware, each
/// as code and a template of its variables; disk.img, which that firmware boots by itself; installed.img, the same with an installation of Debian;
/// TEST_MSVM.fd, firmware of a generation-2 VM that tests its machine; bench-initrd, for measurements.
/// Replaces files of these names in DIR.
#[derive(Args)]
pub(crate) struct GuestArgs {
    /// Where to put them.
    dir: PathBuf,
}

pub(crate) fn run(args: &GuestArgs) -> anyhow::Result<ExitCode> {
    let fetched = setup::ensure()?;
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot create {}", args.dir.display()))?;
    for file in GuestFile::ALL.into_iter().chain([
        GuestFile::InstalledDisk,
        GuestFile::TestFirmware,
        GuestFile::BenchInitrd,
    ]) {
        let path = args.dir.join(file.name());
        if path.is_symlink() || path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        file.make(&fetched, &args.dir)?;
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
