//! The stub that turns a kernel, its initramfs and its command line into one EFI program: systemd-stub(7).

use super::package::DebianPackage;
use super::package::PackageName;
use super::package::Unpacked;
use super::package::keep_file;
use std::path::PathBuf;

const FILE: &str = "linuxx64.efi.stub";

/// The stub's file in the cache.
#[derive(Debug, Clone)]
pub(crate) struct EfiStub {
    dir: PathBuf,
}

impl Unpacked for EfiStub {
    const PACKAGE: DebianPackage = DebianPackage {
        link: "efi-stub",
        names: &[PackageName::Fixed("systemd-boot-efi")],
        suite: "bookworm",
        program: None,
        keep: |tree, kept| {
            keep_file(
                &tree.join("usr/lib/systemd/boot/efi").join(FILE),
                &kept.join(FILE),
            )
        },
    };

    fn at(dir: PathBuf) -> Self {
        Self { dir }
    }
}

impl EfiStub {
    /// The EFI program to add sections to.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }
}
