//! The UEFI firmware that guests boot from: Debian's builds of edk2's OVMF.

use super::package::DebianPackage;
use super::package::PackageName;
use super::package::Unpacked;
use super::package::keep_file;
use std::path::Path;
use std::path::PathBuf;

/// The two builds without Secure Boot: flash of 4 MiB and of 2 MiB, as code and a template of its variables.
const FILES: [&str; 4] = [
    "OVMF_CODE_4M.fd",
    "OVMF_VARS_4M.fd",
    "OVMF_CODE.fd",
    "OVMF_VARS.fd",
];

/// The firmware's files in the cache.
#[derive(Debug, Clone)]
pub(crate) struct DebianOvmf {
    dir: PathBuf,
}

impl Unpacked for DebianOvmf {
    const PACKAGE: DebianPackage = DebianPackage {
        link: "ovmf",
        names: &[PackageName::Fixed("ovmf")],
        suite: "bookworm",
        program: None,
        keep: |tree, kept| {
            for name in FILES {
                keep_file(&tree.join("usr/share/OVMF").join(name), &kept.join(name))?;
            }
            Ok(())
        },
    };

    fn at(dir: PathBuf) -> Self {
        Self { dir }
    }
}

impl DebianOvmf {
    /// The directory of its files, which have the package's names for them.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The files in the cache of Debian 13's firmware, which puts PCI configuration space and functions elsewhere. It comes for
/// 4 MiB of flash only.
#[derive(Debug, Clone)]
pub(crate) struct Debian13Ovmf {
    dir: PathBuf,
}

impl Unpacked for Debian13Ovmf {
    const PACKAGE: DebianPackage = DebianPackage {
        link: "ovmf-13",
        names: &[PackageName::Fixed("ovmf")],
        suite: "trixie",
        program: None,
        keep: |tree, kept| {
            for name in [CODE_13, VARIABLES_13] {
                keep_file(&tree.join("usr/share/OVMF").join(name), &kept.join(name))?;
            }
            Ok(())
        },
    };

    fn at(dir: PathBuf) -> Self {
        Self { dir }
    }
}

const CODE_13: &str = "OVMF_CODE_4M.fd";
const VARIABLES_13: &str = "OVMF_VARS_4M.fd";

impl Debian13Ovmf {
    /// The directory of its files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The code.
    pub(crate) fn code(&self) -> PathBuf {
        self.dir.join(CODE_13)
    }

    /// The template of its variables.
    pub(crate) fn variables(&self) -> PathBuf {
        self.dir.join(VARIABLES_13)
    }
}
