//! `cargo xtask setup`: installs and downloads what the other commands need.

mod apt;
mod efi_stub;
mod grub;
mod installation;
mod kernel;
mod lab_qemu;
mod libraries;
mod needs;
mod ovmf;
mod package;
mod suite;

pub(crate) use efi_stub::EfiStub;
pub(crate) use installation::Installation;
pub(crate) use installation::ROOT;
pub(crate) use installation::SWAP;
pub(crate) use kernel::Debian13Kernel;
pub(crate) use kernel::DebianKernel;
pub(crate) use lab_qemu::LabQemu;
pub(crate) use needs::Need;
pub(crate) use needs::missing;
pub(crate) use ovmf::Debian13Ovmf;
pub(crate) use ovmf::DebianOvmf;
pub(crate) use package::Unpacked;

use clap::Args;
use std::process::ExitCode;

/// Install the programs that demo, test and bench use, and download the kernel and the firmware they
/// boot, and the lab's QEMU.
///
/// Uses apt-get (through sudo unless run as root). Fast if nothing is missing; the other commands
/// do the same.
#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Download the newest packages even if the cache has older ones.
    #[arg(long)]
    update: bool,
}

pub(crate) fn run(args: &SetupArgs) -> anyhow::Result<ExitCode> {
    install_programs()?;
    let fetched = if args.update {
        Fetched {
            kernel: DebianKernel::fetch()?,
            kernel_13: Debian13Kernel::fetch()?.0,
            ovmf: DebianOvmf::fetch()?,
            ovmf_13: Debian13Ovmf::fetch()?,
            efi_stub: EfiStub::fetch()?,
        }
    } else {
        Fetched::ensure()?
    };
    let lab_qemu = match LabQemu::found()? {
        found if args.update || found.is_old() => LabQemu::fetch()?,
        found => found,
    };
    println!("programs: complete");
    for kernel in [&fetched.kernel, &fetched.kernel_13] {
        println!(
            "kernel:   {} in {}",
            kernel.release()?,
            kernel.dir.display()
        );
    }
    for dir in [fetched.ovmf.dir(), fetched.ovmf_13.dir()] {
        println!("firmware: in {}", dir.display());
    }
    let installation = if args.update {
        Installation::fetch()?
    } else {
        Installation::ensure()?
    };
    println!("installation: {}", installation.root().display());
    println!("EFI stub: {}", fetched.efi_stub.path().display());
    println!("lab:      {lab_qemu}");
    Ok(ExitCode::SUCCESS)
}

/// The packages downloaded for guests.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) kernel: DebianKernel,
    /// Debian 13's.
    pub(crate) kernel_13: DebianKernel,
    pub(crate) ovmf: DebianOvmf,
    pub(crate) ovmf_13: Debian13Ovmf,
    pub(crate) efi_stub: EfiStub,
}

impl Fetched {
    fn ensure() -> anyhow::Result<Self> {
        Ok(Self {
            kernel: DebianKernel::ensure()?,
            kernel_13: Debian13Kernel::ensure()?.0,
            ovmf: DebianOvmf::ensure()?,
            ovmf_13: Debian13Ovmf::ensure()?,
            efi_stub: EfiStub::ensure()?,
        })
    }
}

/// Installs and downloads what is missing. Returns the packages for guests.
pub(crate) fn ensure() -> anyhow::Result<Fetched> {
    install_programs()?;
    Fetched::ensure()
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

/// The shell command that installs `missing`.
pub(crate) fn apt_line(missing: &[&Need]) -> String {
    apt::install_line(&needs::packages(missing))
}
