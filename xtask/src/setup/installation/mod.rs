//! An installation of Debian: mmdebstrap(1) installs its packages, systemd and a kernel among them, in a root file system.

use super::grub::Grub;
use super::package::Unpacked;
use super::suite;
use crate::guest::SESSION_SCRIPT;
use crate::process;
use crate::workspace;
use anyhow::Context;
use sha2::Digest;
use sha2::Sha256;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use uuid::Uuid;
use uuid::uuid;

pub(super) const SUITE: &str = "trixie";

/// What is installed besides Debian's smallest set.
const PACKAGES: [&str; 8] = [
    "dbus",
    "initramfs-tools",
    "kmod",
    "linux-image-cloud-amd64",
    "login",
    "systemd-sysv",
    "udev",
    "zstd",
];

/// Files that nobody reads in a test.
const EXCLUDED: [&str; 3] = [
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];

/// Runs before packages are installed, with the root directory as `$1`.
const SETUP: &str = include_str!("setup.sh");
/// Runs after that.
const CUSTOMIZE: &str = include_str!("customize.sh");
/// Runs last.
const FILE_SYSTEM: &str = include_str!("file_system.sh");

/// The UUID of the root file system.
pub(crate) const ROOT: Uuid = uuid!("5d7f1c52-93b1-4c55-9d0b-6f6bcb0a1e01");
/// The UUID of the swap space, which the kernel resumes from.
pub(crate) const SWAP: Uuid = uuid!("5d7f1c52-93b1-4c55-9d0b-6f6bcb0a1e02");

/// The parts of the installation in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    root: PathBuf,
    grub: Grub,
}

impl Installation {
    /// Installs Debian if the cache has no installation of this recipe. That takes some minutes.
    pub(crate) fn ensure() -> anyhow::Result<Self> {
        let grub = Grub::ensure()?;
        let cache = workspace::locked_cache()?;
        let root = cache.dir.join(name(&recipe()));
        if !root.exists() {
            install_in(&cache.dir, &root)?;
        }
        Ok(Self { root, grub })
    }

    /// Installs the newest packages.
    pub(super) fn fetch() -> anyhow::Result<Self> {
        let grub = Grub::fetch()?;
        let cache = workspace::locked_cache()?;
        let root = cache.dir.join(name(&recipe()));
        install_in(&cache.dir, &root)?;
        Ok(Self { root, grub })
    }

    /// The root file system: ext4.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The EFI program that starts it.
    pub(crate) fn grub(&self) -> PathBuf {
        self.grub.path()
    }
}

/// mmdebstrap's options that decide what is installed and how.
fn recipe() -> Vec<String> {
    let mut options = vec![
        "--variant=minbase".to_owned(),
        format!("--include={}", PACKAGES.join(",")),
        "--aptopt=APT::Install-Recommends \"false\"".to_owned(),
    ];
    options.extend(EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}")));
    options.push(format!("--setup-hook={}", script(SETUP)));
    let session = format!("cat >\"$1/root/session.sh\" <<'END'\n{SESSION_SCRIPT}END\n");
    for hook in [CUSTOMIZE, &session, FILE_SYSTEM] {
        options.push(format!("--customize-hook={}", script(hook)));
    }
    options
}

/// A script that knows the file systems' identifiers.
fn script(script: &str) -> String {
    // mmdebstrap wants no newline at the end.
    format!("root={ROOT} swap={SWAP}\n{}", script.trim_end())
}

/// The file's name in the cache: another recipe makes another file.
fn name(recipe: &[String]) -> String {
    let digest = Sha256::digest(recipe.join("\0"));
    let digest: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("installation_{SUITE}_{digest}.ext4")
}

/// Makes the root file system `root` in the cache, which stays as it was if that fails.
fn install_in(cache: &Path, root: &Path) -> anyhow::Result<()> {
    let work = tempfile::Builder::new()
        .prefix(".install-")
        .tempdir_in(cache)?;
    let made = work.path().join("root");
    install(&made)?;
    fs::rename(&made, root).with_context(|| format!("cannot create {}", root.display()))
}

/// Makes a root file system in the file `made`: as root, or in a user namespace.
fn install(made: &Path) -> anyhow::Result<()> {
    // A path in a hook would be taken apart by the shell.
    let dir = made.parent().context("no directory")?;
    let mirror = suite::machines_mirror()?;
    eprintln!("setup: installing {SUITE} of {mirror}; this takes some minutes");
    process::run(
        Command::new("mmdebstrap")
            .args(["--quiet", "--format=null"])
            .arg(format!("--keyring={}", suite::KEYRING))
            .args(recipe())
            // From the namespace, whose users may not write into the cache.
            .arg("--customize-hook=download /root.ext4 root")
            .args([SUITE, "-", &mirror])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(std::io::stderr()),
    )
    .with_context(|| format!("cannot install {SUITE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_recipe_has_another_name() {
        let recipe = recipe();
        let mut other = recipe.clone();
        other[1].push_str(",git");
        assert_eq!(name(&recipe), name(&self::recipe()));
        assert_ne!(name(&recipe), name(&other));
    }

    #[test]
    fn the_scripts_are_understood_by_the_shell() {
        let recipe = recipe();
        let hooks = recipe
            .iter()
            .filter_map(|option| option.split_once("-hook="));
        let mut count = 0;
        for (_, script) in hooks {
            process::run(Command::new("sh").args(["-n", "-c", script])).unwrap();
            count += 1;
        }
        assert_eq!(count, 4);
    }
}
