//! Runs Debian's package tools.

use crate::process;
use anyhow::Context;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The arguments of apt-get before the packages to install.
const INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];

/// A package version as the package lists describe it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PackageVersion {
    pub(super) version: String,
    /// Of the package file, in lower-case hexadecimal.
    pub(super) sha256: String,
}

/// Installs `packages`.
pub(super) fn install(packages: &[&str]) -> anyhow::Result<()> {
    with_fresh_lists(|| {
        eprintln!("setup: {}", install_line(packages));
        process::run(apt_get_as_root().args(INSTALL).args(packages))
    })
    .with_context(|| {
        format!(
            "cannot install packages; try it by hand: {}",
            install_line(packages)
        )
    })
}

/// The shell command that installs `packages`.
pub(super) fn install_line(packages: &[&str]) -> String {
    let mut words = vec!["apt-get"];
    if !is_root() {
        words.insert(0, "sudo");
    }
    words.extend(INSTALL);
    words.extend(packages);
    words.join(" ")
}

/// Package lists, with the mirrors that they come from.
pub(super) struct Lists {
    /// The configuration file with which apt uses them. It reads the file after the machine's own.
    config: PathBuf,
}

impl Lists {
    pub(super) fn new(config: PathBuf) -> Self {
        Self { config }
    }

    /// The first package that `package` depends on: what a meta package currently stands for.
    pub(super) fn real_package(&self, package: &str) -> anyhow::Result<String> {
        let listing = process::output(self.command("apt-cache").args(["depends", package]))?;
        first_dependency(&listing)
            .with_context(|| format!("the package lists name no dependency of {package}"))
    }

    /// The version of `package` that apt-get would install.
    pub(super) fn candidate(&self, package: &str) -> anyhow::Result<PackageVersion> {
        let shown = process::output(self.command("apt-cache").args([
            "show",
            "--no-all-versions",
            package,
        ]))?;
        parse_candidate(&shown)
            .with_context(|| format!("the package lists give no version and SHA256 of {package}"))
    }

    /// Downloads the package file into `dir` without installing it.
    pub(super) fn download(&self, package: &str, version: &str, dir: &Path) -> anyhow::Result<()> {
        // As our user: apt's own user could not write to `dir`.
        process::run(
            self.command("apt-get")
                .args(["--quiet", "-o", "APT::Sandbox::User=root", "download"])
                .arg(format!("{package}={version}"))
                .stdout(io::stderr())
                .current_dir(dir),
        )
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(&self.config);
        command
    }
}

fn first_dependency(listing: &str) -> Option<String> {
    listing
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
}

fn parse_candidate(shown: &str) -> Option<PackageVersion> {
    let field = |name| {
        shown
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .map(str::to_owned)
    };
    Some(PackageVersion {
        version: field("Version")?,
        sha256: field("SHA256")?,
    })
}

/// Fetches the machine's package lists.
fn update() -> anyhow::Result<()> {
    eprintln!("setup: apt-get update");
    process::run(apt_get_as_root().args(["--quiet", "update"]))
}

/// Tries `attempt`. If it fails, updates the machine's package lists and tries once more: outdated lists name files that
/// the mirror has no more.
fn with_fresh_lists<T>(attempt: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    attempt().or_else(|err| {
        eprintln!("setup: {err:#}");
        update()?;
        attempt()
    })
}

fn apt_get_as_root() -> Command {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    // Our standard output is reserved: in the lab it is the command's.
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(io::stderr());
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_dependency_of_a_meta_package() {
        let listing = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-9-cloud-amd64\n  Recommends: x\n";
        assert_eq!(
            first_dependency(listing).unwrap(),
            "linux-image-6.1.0-9-cloud-amd64"
        );
        assert_eq!(first_dependency("linux-image-cloud-amd64\n"), None);
    }

    #[test]
    fn a_candidate_needs_its_hash() {
        let shown = "Package: k\nVersion: 6.1-2\nSize: 5\nSHA256: abcd\nDescription: Version: 7\n";
        let candidate = parse_candidate(shown).unwrap();
        assert_eq!(candidate.version, "6.1-2");
        assert_eq!(candidate.sha256, "abcd");
        assert_eq!(parse_candidate("Version: 1\n"), None);
    }
}
