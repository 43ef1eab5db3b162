//! The programs that the commands need, and their Debian packages.

use super::suite;
use crate::process;
use object::Endianness;
use object::elf::PT_INTERP;
use object::read::elf::ElfFile64;
use object::read::elf::ProgramHeader;
use std::fs;
use std::path::Path;

/// A program or file that is needed.
pub(crate) struct Need {
    /// What it is.
    pub(crate) what: &'static str,
    /// What it is for.
    pub(crate) purpose: &'static str,
    /// The Debian package.
    pub(crate) package: &'static str,
    found: fn() -> bool,
}

/// All programs and files that are needed.
pub(crate) static NEEDS: &[Need] = &[
    Need {
        what: "qemu-system-x86_64",
        purpose: "the VMM that bench compares with, and the lab's machine unless setup downloads a newer one",
        package: "qemu-system-x86",
        found: || process::find("qemu-system-x86_64").is_some(),
    },
    Need {
        what: "a static busybox",
        purpose: "the userland of the lab and of guests",
        package: "busybox-static",
        found: || is_static(Path::new("/bin/busybox")),
    },
    Need {
        what: "passt",
        purpose: "user-mode networks in tests",
        package: "passt",
        found: || process::find("passt").is_some(),
    },
    Need {
        what: "iasl",
        purpose: "disassembling ACPI tables in tests",
        package: "acpica-tools",
        found: || process::find("iasl").is_some(),
    },
    Need {
        what: "setpriv",
        purpose: "ending the lab's machine when xtask ends",
        package: "util-linux",
        found: || process::find("setpriv").is_some(),
    },
    Need {
        what: "dpkg-deb",
        purpose: "unpacking packages",
        package: "dpkg",
        found: || process::find("dpkg-deb").is_some(),
    },
    Need {
        what: "xz",
        purpose: "unpacking kernel modules",
        package: "xz-utils",
        found: || process::find("xz").is_some(),
    },
    Need {
        what: "mmdebstrap",
        purpose: "installing Debian for a test",
        package: "mmdebstrap",
        found: || process::find("mmdebstrap").is_some(),
    },
    Need {
        what: "newuidmap",
        purpose: "the same without being root",
        package: "uidmap",
        found: || process::find("newuidmap").is_some(),
    },
    Need {
        what: "mke2fs",
        purpose: "the installation's file system",
        package: "e2fsprogs",
        found: || process::find("mke2fs").is_some(),
    },
    Need {
        what: "Debian's keys",
        purpose: "verifying packages",
        package: "debian-archive-keyring",
        found: || Path::new(suite::KEYRING).exists(),
    },
    Need {
        what: "cc",
        purpose: "linking",
        package: "gcc",
        found: || process::find("cc").is_some(),
    },
    Need {
        what: "c++",
        purpose: "building the fuzzing engine",
        package: "g++",
        found: || process::find("c++").is_some(),
    },
    Need {
        what: "libc.a",
        purpose: "linking statically",
        package: "libc6-dev",
        found: || Path::new("/usr/lib/x86_64-linux-gnu/libc.a").exists(),
    },
];

/// What is missing on this machine.
pub(crate) fn missing() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !(need.found)()).collect()
}

/// The packages to install for `needs`, each once.
pub(crate) fn packages(needs: &[&Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether `path` is an ELF program without a dynamic loader.
fn is_static(path: &Path) -> bool {
    let data = fs::read(path).unwrap_or_default();
    ElfFile64::<Endianness>::parse(&*data).is_ok_and(|program| {
        let mut headers = program.elf_program_headers().iter();
        !headers.any(|header| header.p_type(program.endian()) == PT_INTERP)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_or_a_script_is_not_static() {
        assert!(!is_static(&std::env::current_exe().unwrap()));
        assert!(!is_static(Path::new(file!())));
        assert!(!is_static(Path::new("/nonexistent")));
    }

    #[test]
    fn a_program_without_a_loader_is_static() {
        // An ELF header for x86-64, without program headers.
        let mut program = b"\x7fELF\x02\x01\x01".to_vec();
        program.resize(16, 0);
        program.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        program.resize(52, 0);
        program.extend([64, 0, 56]);
        program.resize(64, 0);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), program).unwrap();
        assert!(is_static(file.path()));
    }

    #[test]
    fn packages_are_listed_once() {
        let twice: Vec<_> = NEEDS.iter().chain(NEEDS).collect();
        let packages = packages(&twice);
        assert_eq!(packages.len(), NEEDS.len());
    }
}
