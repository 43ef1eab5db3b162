//! `cargo xtask build-igvm`: makes an IGVM file of a manifest.

use crate::guest::GuestFile;
use crate::setup;
use crate::workspace;
use anyhow::Context;
use clap::Args;
use clap::ValueEnum;
use igvmfilegen::Manifest;
use igvmfilegen::ResourceKind;
use igvmfilegen::Resources;
use igvmfilegen::generate;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make an IGVM file, named after its manifest, in target/igvm.
///
/// The kernel, the initial RAM disk and OVMF are those of the guest that tests boot, unless given.
#[derive(Args)]
pub(crate) struct BuildIgvmArgs {
    /// The architecture of the guest.
    #[arg(value_enum)]
    architecture: IgvmArchitecture,
    /// The manifest, instead of vm/loader/manifests/linux-x64.json.
    #[arg(long, value_name = "FILE")]
    override_manifest: Option<PathBuf>,
    /// The Linux kernel, instead of Debian's.
    #[arg(long, value_name = "FILE")]
    custom_kernel: Option<PathBuf>,
    /// The initial RAM disk, instead of the tests'.
    #[arg(long, value_name = "FILE")]
    custom_initrd: Option<PathBuf>,
    /// The firmware of a generation-2 VM, instead of the test firmware.
    #[arg(long, value_name = "FILE")]
    custom_uefi: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum IgvmArchitecture {
    X64,
}

pub(crate) fn run(args: &BuildIgvmArgs) -> anyhow::Result<ExitCode> {
    let IgvmArchitecture::X64 = args.architecture;
    let manifest_path = match &args.override_manifest {
        Some(path) => path.clone(),
        None => workspace::root().join("vm/loader/manifests/linux-x64.json"),
    };
    let manifest = Manifest::read(&manifest_path)?;
    let name = manifest_path
        .file_stem()
        .context("the manifest has no name")?;
    let target = workspace::metadata()?.target_directory;
    let dir = target.into_std_path_buf().join("igvm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;

    let parts = tempfile::tempdir()?;
    let mut resources = Resources::default();
    for kind in manifest.needs() {
        let path = match (kind, &args.custom_kernel, &args.custom_initrd) {
            (ResourceKind::LinuxKernel, Some(path), _)
            | (ResourceKind::LinuxInitrd, _, Some(path)) => std::path::absolute(path)?,
            (ResourceKind::LinuxKernel, None, _) => debian(GuestFile::Kernel, &parts)?,
            (ResourceKind::LinuxInitrd, _, None) => debian(GuestFile::Initrd, &parts)?,
            (ResourceKind::Uefi, ..) => match &args.custom_uefi {
                Some(path) => std::path::absolute(path)?,
                None => debian(GuestFile::TestFirmware, &parts)?,
            },
            (ResourceKind::OvmfCode, ..) => debian(GuestFile::Ovmf4mCode, &parts)?,
            (ResourceKind::OvmfVars, ..) => debian(GuestFile::Ovmf4mVars, &parts)?,
            (kind, ..) => anyhow::bail!("there is no {kind} to build with"),
        };
        println!("build-igvm: {kind} is {}", path.display());
        resources.resources.insert(kind, path);
    }
    let generated = generate(&manifest, &resources)
        .with_context(|| format!("cannot make a file of {}", manifest_path.display()))?;
    for (extension, bytes) in [
        ("igvm", &generated.file[..]),
        ("igvm.map", generated.map.as_bytes()),
    ] {
        let path = dir.join(name).with_extension(extension);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        println!("build-igvm: {} ({} bytes)", path.display(), bytes.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes one of the guest's files.
fn debian(file: GuestFile, dir: &tempfile::TempDir) -> anyhow::Result<PathBuf> {
    file.make(&setup::ensure()?, dir.path())?;
    Ok(dir.path().join(file.name()))
}
