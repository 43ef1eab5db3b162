//! The programs that the commands need, and the Debian packages that hold them.

use crate::process;
use std::fs;
use std::path::Path;

/// One program or file.
pub(crate) struct Need {
    /// What it is.
    pub(crate) what: &'static str,
    /// What it is for.
    pub(crate) purpose: &'static str,
    /// The Debian package.
    pub(crate) package: &'static str,
    found: fn() -> bool,
}

/// Everything needed.
pub(crate) static NEEDS: &[Need] = &[
    Need {
        what: "qemu-system-x86_64",
        purpose: "the VMM that bench compares with, and the lab's machine unless setup fetches a newer one",
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
        what: "iasl",
        purpose: "disassembling ACPI tables in tests",
        package: "acpica-tools",
        found: || process::find("iasl").is_some(),
    },
    Need {
        what: "setpriv",
        purpose: "ending the lab's machine together with its starter",
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

/// What this machine lacks.
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

/// Whether `path` is an ELF program that asks for no dynamic loader.
fn is_static(path: &Path) -> bool {
    /// The ELF program header type of the loader's name.
    const PT_INTERP: u32 = 3;
    let Ok(elf) = fs::read(path) else {
        return false;
    };
    let headers = || {
        let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
        let offset = u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?);
        let offset = usize::try_from(offset).ok()?;
        let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
        (elf.starts_with(b"\x7fELF\x02\x01") && size >= 56).then_some(())?;
        elf.get(offset..offset.checked_add(size * count)?)
            .map(|headers| headers.chunks_exact(size))
    };
    headers()
        .is_some_and(|mut headers| !headers.any(|header| header[..4] == PT_INTERP.to_le_bytes()))
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
    fn packages_are_listed_once() {
        let twice: Vec<_> = NEEDS.iter().chain(NEEDS).collect();
        let packages = packages(&twice);
        assert_eq!(packages.len(), NEEDS.len());
    }
}
