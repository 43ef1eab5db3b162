//! The guest's files. Each has the same name wherever guests run.

use super::boot_disk;
use super::initramfs::bench_initramfs;
use super::initramfs::initramfs;
use super::installed_disk;
use super::test_firmware;
use crate::setup::Fetched;
use anyhow::Context;
use std::fs;
use std::path::Path;

/// One of the guest's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestFile {
    /// The Linux boot image.
    Kernel,
    /// The initramfs.
    Initrd,
    /// The boot image of Debian 13's kernel.
    Kernel13,
    /// The initramfs for it.
    Initrd13,
    /// The code of the firmware in 4 MiB of flash.
    Ovmf4mCode,
    /// The template of its variables.
    Ovmf4mVars,
    /// The code of the firmware in 2 MiB of flash.
    Ovmf2mCode,
    /// The template of its variables.
    Ovmf2mVars,
    /// The code of Debian 13's firmware in 4 MiB of flash.
    Ovmf13Code,
    /// The template of its variables.
    Ovmf13Vars,
    /// The initramfs with the guest's part of measurements.
    BenchInitrd,
    /// The test firmware.
    TestFirmware,
    /// A disk with an EFI system partition that boots the kernel with the initramfs.
    BootDisk,
    /// A disk with an installation of Debian, which a guest may change.
    InstalledDisk,
}

impl GuestFile {
    /// All files that are made fast: without a build of a workspace package or an installation of Debian.
    pub(crate) const ALL: [Self; 11] = [
        Self::Kernel,
        Self::Initrd,
        Self::Kernel13,
        Self::Initrd13,
        Self::Ovmf4mCode,
        Self::Ovmf4mVars,
        Self::Ovmf2mCode,
        Self::Ovmf2mVars,
        Self::Ovmf13Code,
        Self::Ovmf13Vars,
        Self::BootDisk,
    ];

    /// The file's name in the directory of guest files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kernel => "vmlinuz",
            Self::Initrd => "initrd",
            Self::Kernel13 => "vmlinuz-13",
            Self::Initrd13 => "initrd-13",
            Self::Ovmf4mCode => "OVMF_CODE_4M.fd",
            Self::Ovmf4mVars => "OVMF_VARS_4M.fd",
            Self::Ovmf2mCode => "OVMF_CODE.fd",
            Self::Ovmf2mVars => "OVMF_VARS.fd",
            Self::Ovmf13Code => "OVMF_CODE_13.fd",
            Self::Ovmf13Vars => "OVMF_VARS_13.fd",
            Self::BenchInitrd => "bench-initrd",
            Self::TestFirmware => "TEST_MSVM.fd",
            Self::BootDisk => "disk.img",
            Self::InstalledDisk => "installed.img",
        }
    }

    /// Makes the file in `dir`.
    pub(crate) fn make(self, fetched: &Fetched, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(self.name());
        let link = |to: &Path| std::os::unix::fs::symlink(to, &path);
        match self {
            Self::Kernel => link(&fetched.kernel.vmlinuz()),
            Self::Initrd => fs::write(&path, initramfs(&fetched.kernel)?),
            Self::Kernel13 => link(&fetched.kernel_13.vmlinuz()),
            Self::Initrd13 => fs::write(&path, initramfs(&fetched.kernel_13)?),
            Self::BenchInitrd => fs::write(&path, bench_initramfs(&fetched.kernel)?),
            Self::TestFirmware => fs::write(&path, test_firmware::build()?),
            Self::BootDisk => fs::write(&path, boot_disk::build(fetched)?),
            Self::InstalledDisk => return installed_disk::make(&path),
            Self::Ovmf4mCode | Self::Ovmf2mCode => link(&fetched.ovmf.dir().join(self.name())),
            // A guest may write its variables, but not the template.
            Self::Ovmf4mVars | Self::Ovmf2mVars => {
                fs::copy(fetched.ovmf.dir().join(self.name()), &path).map(drop)
            }
            Self::Ovmf13Code => link(&fetched.ovmf_13.code()),
            Self::Ovmf13Vars => fs::copy(fetched.ovmf_13.variables(), &path).map(drop),
        }
        .with_context(|| format!("cannot make {}", path.display()))
    }
}
