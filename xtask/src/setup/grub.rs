//! GRUB, as Debian signs it: one EFI program with all modules that it needs.

use super::package::DebianPackage;
use super::package::PackageName;
use super::package::Unpacked;
use super::package::keep_file;
use std::path::PathBuf;

const FILE: &str = "grubx64.efi";

/// GRUB's file in the cache. It reads `EFI/debian/grub.cfg` on the partition that it was started from.
#[derive(Debug, Clone)]
pub(crate) struct Grub {
    dir: PathBuf,
}

impl Unpacked for Grub {
    const PACKAGE: DebianPackage = DebianPackage {
        link: "grub",
        names: &[PackageName::Fixed("grub-efi-amd64-signed")],
        suite: super::installation::SUITE,
        program: None,
        keep: |tree, kept| {
            keep_file(
                &tree.join("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
                &kept.join(FILE),
            )
        },
    };

    fn at(dir: PathBuf) -> Self {
        Self { dir }
    }
}

impl Grub {
    /// The EFI program.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }
}
