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
