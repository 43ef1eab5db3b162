//! The QEMU of the lab's machine.
//!
//! Older versions emulate SVM with errors. With QEMU 7.2, which Debian 12 has, some nested guests hang for minutes or end in a
//! triple fault under load on the serial port; with 8.2, which Ubuntu 24.04 has, OVMF ends in a triple fault at once. QEMU 10
//! from Debian's backports does not. It is unpacked in the cache; the installed
//! QEMU is not changed, and is the one that bench measures.

use super::libraries;
use super::package::DebianPackage;
use super::package::ForeignProgram;
use super::package::PackageName;
use super::package::keep_file;
use crate::process;
use crate::workspace;
use anyhow::Context;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The program and its data. The lab's machine uses none of its loadable modules (`qemu-system-common`).
const PACKAGE: DebianPackage = DebianPackage {
    link: "lab-qemu",
    names: &[
        PackageName::Fixed("qemu-system-x86"),
        PackageName::Fixed("qemu-system-data"),
        PackageName::Fixed("seabios"),
    ],
    suite: "bookworm-backports",
    program: Some(ForeignProgram {
        name: PROGRAM,
        suite: "bookworm",
        libraries: LIBRARIES,
    }),
    keep: |tree, kept| {
        keep_file(&tree.join("usr/bin").join(PROGRAM), &kept.join(PROGRAM))?;
        for name in DATA {
            keep_file(&tree.join("usr/share").join(name), &kept.join(name))?;
        }
        Ok(())
    },
};

const PROGRAM: &str = "qemu-system-x86_64";

/// The directory of the shared libraries that this machine lacks.
const LIBRARIES: &str = "lib";

/// The directories of firmware and option ROMs.
const DATA: [&str; 2] = ["qemu", "seabios"];

/// The first major version that is known to be without those errors.
const GOOD: u32 = 10;

/// The file in the cache whose time tells when the download last failed.
const FAILED: &str = "lab-qemu.failed";

/// For how long after a failed download only `setup` tries again, so that a lab without a network starts fast.
const PAUSE: Duration = Duration::from_secs(3600);

/// A QEMU for the lab's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabQemu {
    program: PathBuf,
    /// The directory of shared libraries that this machine lacks, if it was unpacked.
    libraries: Option<PathBuf>,
    /// The directories of its data, if not those that it was built for.
    data: Vec<PathBuf>,
    version: String,
}

impl LabQemu {
    /// The installed QEMU if it is new enough; else the one in the cache, downloaded if the cache has none; and if that
    /// fails, the installed one, with a warning.
    pub(crate) fn ensure() -> anyhow::Result<Self> {
        let found = Self::found()?;
        if !found.is_old() {
            return Ok(found);
        }
        if failed_lately(&workspace::cache()?.join(FAILED)) {
            found.warn(
                "downloading a newer one failed within the last hour; cargo xtask setup tries again",
            );
            return Ok(found);
        }
        found.or_fetched()
    }

    /// Like [`Self::ensure`], but downloads the newest version of the backports.
    pub(super) fn fetch() -> anyhow::Result<Self> {
        if Self::installed()?.is_old() {
            Self::found()?.or_fetched()
        } else {
            Self::installed()
        }
    }

    /// The QEMU to use without downloading one.
    pub(crate) fn found() -> anyhow::Result<Self> {
        let installed = Self::installed()?;
        match PACKAGE.cached()? {
            // If the cached one no longer runs, the next download reports it.
            Some(dir) if installed.is_old() => Ok(Self::unpacked(&dir).unwrap_or(installed)),
            _ => Ok(installed),
        }
    }

    fn installed() -> anyhow::Result<Self> {
        let program = process::find(PROGRAM).with_context(|| format!("there is no {PROGRAM}"))?;
        Ok(Self {
            version: version(Command::new(&program))?,
            program,
            libraries: None,
            data: Vec::new(),
        })
    }

    fn unpacked(dir: &Path) -> anyhow::Result<Self> {
        let program = dir.join(PROGRAM);
        // By the link: the directory's name has a colon, which separates directories for the loader.
        let libraries = workspace::cache()?.join(PACKAGE.link).join(LIBRARIES);
        let mut command = Command::new(&program);
        let (name, value) = libraries::variable(&libraries);
        command.env(name, value);
        Ok(Self {
            version: version(command)?,
            program,
            libraries: Some(libraries),
            data: DATA.map(|name| dir.join(name)).into(),
        })
    }

    /// Downloads one from the backports; returns this one if that fails.
    fn or_fetched(self) -> anyhow::Result<Self> {
        let failed = workspace::cache()?.join(FAILED);
        match PACKAGE.fetch().and_then(|dir| Self::unpacked(&dir)) {
            Ok(fetched) => {
                let _ = fs::remove_file(failed);
                Ok(fetched)
            }
            Err(err) => {
                fs::write(&failed, format!("{err:#}\n"))
                    .with_context(|| format!("cannot write {}", failed.display()))?;
                self.warn(&format!("cannot download a newer one: {err:#}"));
                Ok(self)
            }
        }
    }

    fn warn(&self, why: &str) {
        eprintln!("warning: the lab uses {self} ({why})");
    }

    /// Whether it is known to be too old for the lab.
    pub(super) fn is_old(&self) -> bool {
        self.version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .is_some_and(|major: u32| major < GOOD)
    }

    /// The program and the options for its data directories, as a command.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if let Some(directory) = &self.libraries {
            let (name, value) = libraries::variable(directory);
            let mut setting = OsString::from(name);
            setting.push("=");
            setting.push(value);
            words.extend(["env".into(), setting]);
        }
        words.push(self.program.clone().into());
        for dir in &self.data {
            words.extend(["-L".into(), dir.into()]);
        }
        words
    }
}

impl fmt::Display for LabQemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QEMU {}: {}", self.version, self.program.display())?;
        if self.is_old() {
            write!(f, ", with which guests in the lab may hang or triple fault")?;
        }
        Ok(())
    }
}

fn version(mut qemu: Command) -> anyhow::Result<String> {
    let printed = process::output(qemu.arg("--version"))?;
    parse_version(&printed).with_context(|| format!("{} prints no version", process::shown(&qemu)))
}

fn parse_version(printed: &str) -> Option<String> {
    printed
        .strip_prefix("QEMU emulator version ")?
        .split_whitespace()
        .next()
        .map(str::to_owned)
}

fn failed_lately(failed: &Path) -> bool {
    // A time in the future does not count: the clock was set back.
    let age = || failed.metadata().ok()?.modified().ok()?.elapsed().ok();
    age().is_some_and(|age| age < PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::SystemTime;

    fn qemu(version: &str, data: &[&str]) -> LabQemu {
        LabQemu {
            program: "/x/qemu".into(),
            libraries: None,
            data: data.iter().map(PathBuf::from).collect(),
            version: version.to_owned(),
        }
    }

    #[test]
    fn the_version_is_what_follows_the_name() {
        let printed = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright (c)\n";
        assert_eq!(parse_version(printed).unwrap(), "7.2.22");
        assert_eq!(
            parse_version("QEMU emulator version 8.0.0\n").unwrap(),
            "8.0.0"
        );
        assert_eq!(parse_version("something else 7.2\n"), None);
    }

    #[test]
    fn only_versions_before_10_are_old() {
        for (version, old) in [
            ("7.2.22", true),
            ("5.2.0", true),
            ("8.2.2", true),
            ("10.0.2", false),
            ("11.1.3", false),
            ("v9", false),
        ] {
            assert_eq!(qemu(version, &[]).is_old(), old, "{version}");
        }
    }

    #[test]
    fn an_old_qemu_is_shown_with_a_warning() {
        assert!(qemu("7.2.22", &[]).to_string().contains("may hang"));
        assert_eq!(qemu("10.0.2", &[]).to_string(), "QEMU 10.0.2: /x/qemu");
    }

    #[test]
    fn an_unpacked_qemu_gets_its_data_directories() {
        assert_eq!(qemu("7.2.22", &[]).words(), ["/x/qemu"]);
        assert_eq!(
            qemu("10.0.2", &["/x/a", "/x/b"]).words(),
            ["/x/qemu", "-L", "/x/a", "-L", "/x/b"]
        );
        let unpacked = LabQemu {
            libraries: Some("/x/lib".into()),
            ..qemu("10.0.2", &[])
        };
        assert_eq!(
            unpacked.words(),
            ["env", "LD_LIBRARY_PATH=/x/lib", "/x/qemu"]
        );
    }

    #[test]
    fn a_failed_download_is_not_repeated_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FAILED);
        assert!(!failed_lately(&path));
        let file = File::create(&path).unwrap();
        assert!(failed_lately(&path));
        file.set_modified(SystemTime::now() - PAUSE).unwrap();
        assert!(!failed_lately(&path));
        file.set_modified(SystemTime::now() + PAUSE).unwrap();
        assert!(!failed_lately(&path));
    }
}
