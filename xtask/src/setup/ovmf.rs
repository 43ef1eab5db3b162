//! The UEFI firmware that guests boot from: Debian's builds of edk2's OVMF.

use super::package::Name;
use super::package::Package;
use super::package::Source;
use super::package::keep_file;
use std::path::Path;
use std::path::PathBuf;

const PACKAGE: Package = Package {
    link: "ovmf",
    names: &[Name::Fixed("ovmf")],
    source: Source::Machine,
    program: None,
    keep: |tree, kept| {
        for name in FILES {
            keep_file(&tree.join("usr/share/OVMF").join(name), &kept.join(name))?;
        }
        Ok(())
    },
};

/// The two builds without Secure Boot: flash of 4 MiB and of 2 MiB, as code and a template of its variables.
const FILES: [&str; 4] = [
    "OVMF_CODE_4M.fd",
    "OVMF_VARS_4M.fd",
    "OVMF_CODE.fd",
    "OVMF_VARS.fd",
];

/// The firmware's files in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Ovmf {
    dir: PathBuf,
}

impl Ovmf {
    pub(super) fn ensure() -> anyhow::Result<Self> {
        PACKAGE.ensure().map(|dir| Self { dir })
    }

    pub(super) fn fetch() -> anyhow::Result<Self> {
        PACKAGE.fetch().map(|dir| Self { dir })
    }

    /// The firmware in the cache, if it is there.
    pub(crate) fn cached() -> anyhow::Result<Option<Self>> {
        Ok(PACKAGE.cached()?.map(|dir| Self { dir }))
    }

    /// Where its files are, under the package's names for them.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}
