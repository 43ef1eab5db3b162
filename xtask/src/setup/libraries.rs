//! The shared libraries of programs that were unpacked without being installed.

use super::package;
use super::suite;
use crate::process;
use anyhow::Context;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use walkdir::WalkDir;

/// Unpacks into `dir` the shared libraries that `program` lacks on this machine: those of the library packages that `debs`,
/// its package files, depend on, from `suite`. (This machine may have libraries of other names or versions.)
pub(super) fn ensure(
    program: &Path,
    debs: &[PathBuf],
    suite: &str,
    dir: &Path,
) -> anyhow::Result<()> {
    if missing(program, dir)?.is_empty() {
        return Ok(());
    }
    let work = tempfile::tempdir()?;
    let lists = suite::lists(suite, work.path())?;
    let tree = work.path().join("tree");
    let mut packages = BTreeSet::new();
    for deb in debs {
        packages.extend(library_packages(deb)?);
    }
    let mut unpacked = BTreeSet::new();
    fs::create_dir_all(dir)?;
    loop {
        let missing = missing(program, dir)?;
        if missing.is_empty() {
            return Ok(());
        }
        eprintln!("setup: {} lacks {}", program.display(), missing.join(", "));
        let wanted: Vec<String> = packages
            .difference(&unpacked)
            .filter(|package| missing.iter().any(|library| is_of(library, package)))
            .cloned()
            .collect();
        anyhow::ensure!(
            !wanted.is_empty(),
            "no package of {suite} is known to have {}",
            missing.join(", ")
        );
        for package in wanted {
            let deb = package::unpack(&lists, &package, &work.path().join(&package), &tree)?;
            // Its libraries may need others.
            packages.extend(library_packages(&deb)?);
            unpacked.insert(package);
        }
        for entry in WalkDir::new(&tree) {
            let entry = entry.with_context(|| format!("cannot list {}", tree.display()))?;
            if missing
                .iter()
                .any(|library| **library == *entry.file_name())
            {
                // Of a link, what it points to.
                fs::copy(entry.path(), dir.join(entry.file_name()))
                    .with_context(|| format!("cannot copy {}", entry.path().display()))?;
            }
        }
    }
}

/// The environment variable that makes the dynamic loader look into `dir` first.
pub(super) fn variable(dir: &Path) -> (&'static str, &Path) {
    ("LD_LIBRARY_PATH", dir)
}

/// Whether a package may hold a library, by their names: `libjpeg.so.62` is in `libjpeg62-turbo`, `libpng16.so.16` in
/// `libpng16-16`.
fn is_of(library: &str, package: &str) -> bool {
    library.split_once(".so.").is_some_and(|(name, version)| {
        let dash = if name.ends_with(|last: char| last.is_ascii_digit()) {
            "-"
        } else {
            ""
        };
        package.starts_with(&format!("{name}{dash}{version}"))
    })
}

/// The libraries that `program` needs, and that neither this machine nor `dir` has.
fn missing(program: &Path, dir: &Path) -> anyhow::Result<Vec<String>> {
    let (name, value) = variable(dir);
    let listing = process::output(Command::new("ldd").arg(program).env(name, value))?;
    Ok(not_found(&listing))
}

/// Parses the output of ldd(1) for libraries that were not found.
fn not_found(listing: &str) -> Vec<String> {
    listing
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" => not found"))
        .map(str::to_owned)
        .collect()
}

/// The library packages that a package depends on.
fn library_packages(deb: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new("dpkg-deb");
    command.arg("--field").arg(deb).arg("Depends");
    let depends = process::output(&mut command)?;
    Ok(libraries_of(&depends).map(str::to_owned).collect())
}

/// The names of library packages in a `Depends` field; of alternatives, the first.
fn libraries_of(depends: &str) -> impl Iterator<Item = &str> {
    depends
        .split(',')
        .filter_map(|dependency| dependency.split_whitespace().next())
        .filter(|name| name.starts_with("lib"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_are_not_found() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibfdt.so.1 => /lib/x86_64-linux-gnu/libfdt.so.1 (0x00007f)\n\
            \tlibnew.so.3 => not found\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n";
        assert_eq!(not_found(listing), ["libnew.so.3"]);
        let missing = missing(Path::new("/bin/sh"), Path::new("/nonexistent"));
        assert!(missing.unwrap().is_empty());
    }

    #[test]
    fn the_libraries_of_a_depends_field() {
        let depends =
            "libaio1 (>= 0.3.93), libold1 | libnew1, qemu-system-common (= 1:10), libc6\n";
        assert_eq!(
            libraries_of(depends).collect::<Vec<_>>(),
            ["libaio1", "libold1", "libc6"]
        );
    }

    #[test]
    fn a_librarys_package_has_its_name_and_version() {
        for (library, package) in [
            ("libaio.so.1", "libaio1"),
            ("libjpeg.so.62", "libjpeg62-turbo"),
            ("libpng16.so.16", "libpng16-16"),
        ] {
            assert!(is_of(library, package), "{library}");
        }
        assert!(!is_of("libaio.so.1", "libc6"));
        assert!(!is_of("libaio.so.1t64", "libaio1"));
    }
}
