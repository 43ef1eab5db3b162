//! Installs the shared libraries of programs that were unpacked without being installed.

use super::apt;
use crate::process;
use anyhow::Context;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

/// Installs the shared libraries that `program` lacks: the library packages that `debs`, its package files, depend on.
pub(super) fn ensure(program: &Path, debs: &[PathBuf]) -> anyhow::Result<()> {
    let missing = missing(program)?;
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("setup: {} lacks {}", program.display(), missing.join(", "));
    let mut packages = BTreeSet::new();
    for deb in debs {
        let depends = process::output(
            Command::new("dpkg-deb")
                .arg("--field")
                .arg(deb)
                .arg("Depends"),
        )?;
        packages.extend(library_packages(&depends).map(str::to_owned));
    }
    let mut wanted = Vec::new();
    for package in &packages {
        if !is_installed(package)? {
            wanted.push(package.as_str());
        }
    }
    anyhow::ensure!(
        !wanted.is_empty(),
        "{} lacks {}, although all library packages that it depends on are installed",
        program.display(),
        missing.join(", ")
    );
    apt::install(&wanted)?;
    let still = self::missing(program)?;
    anyhow::ensure!(
        still.is_empty(),
        "{} still lacks {}",
        program.display(),
        still.join(", ")
    );
    Ok(())
}

fn missing(program: &Path) -> anyhow::Result<Vec<String>> {
    let listing = process::output(Command::new("ldd").arg(program))?;
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

/// The names of library packages in a `Depends` field; of alternatives, the first.
fn library_packages(depends: &str) -> impl Iterator<Item = &str> {
    depends
        .split(',')
        .filter_map(|dependency| dependency.split_whitespace().next())
        .filter(|name| name.starts_with("lib"))
}

fn is_installed(package: &str) -> anyhow::Result<bool> {
    let mut command = Command::new("dpkg-query");
    command
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .stderr(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", process::shown(&command)))?;
    Ok(output.status.success() && output.stdout.starts_with(b"installed"))
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
        assert!(missing(Path::new("/bin/sh")).unwrap().is_empty());
    }

    #[test]
    fn the_libraries_of_a_depends_field() {
        let depends =
            "libaio1 (>= 0.3.93), libold1 | libnew1, qemu-system-common (= 1:10), libc6\n";
        assert_eq!(
            library_packages(depends).collect::<Vec<_>>(),
            ["libaio1", "libold1", "libc6"]
        );
    }

    #[test]
    fn an_unknown_package_is_not_installed() {
        assert!(is_installed("dpkg").unwrap());
        assert!(!is_installed("libnonesuch0").unwrap());
    }
}
