//! The stub that makes a kernel, its initramfs and its command line one EFI program: systemd-stub(7).

use super::package::Name;
use super::package::Package;
use super::package::Source;
use super::package::keep_file;
use std::path::PathBuf;

const PACKAGE: Package = Package {
    link: "efi-stub",
    names: &[Name::Fixed("systemd-boot-efi")],
    source: Source::Machine,
    program: None,
    keep: |tree, kept| {
        keep_file(
            &tree.join("usr/lib/systemd/boot/efi").join(FILE),
            &kept.join(FILE),
        )
    },
};

const FILE: &str = "linuxx64.efi.stub";

/// The stub in the cache.
#[derive(Debug, Clone)]
pub(crate) struct EfiStub {
    dir: PathBuf,
}

impl EfiStub {
    pub(super) fn ensure() -> anyhow::Result<Self> {
        PACKAGE.ensure().map(|dir| Self { dir })
    }

    pub(super) fn fetch() -> anyhow::Result<Self> {
        PACKAGE.fetch().map(|dir| Self { dir })
    }

    /// The EFI program to add sections to.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }
}
