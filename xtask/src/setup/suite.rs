//! Reads the package lists of a suite of Debian's archive, without adding them to the machine's package sources.
//!
//! Guests and the lab are the same on every machine, whatever release it has, and if it is not Debian's.

use super::apt::Lists;
use crate::process;
use anyhow::Context;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// The keys that Debian signs its package lists with, from the package `debian-archive-keyring`.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The mirror for machines whose package sources name none.
const MIRROR: &str = "http://deb.debian.org/debian/";

/// Downloads the package lists of `suite` (`bookworm`, `bookworm-backports`) into `dir`, from the mirror that the machine
/// uses for its own.
///
/// apt keeps all of its files for them in `dir`. Fails unless Debian signed the lists.
pub(super) fn lists(suite: &str, dir: &Path) -> anyhow::Result<Lists> {
    let mirror = &machines_mirror()?;
    for directory in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(dir.join(directory))?;
    }
    // For these lists, no package is installed.
    fs::write(dir.join("status"), "")?;
    fs::write(dir.join("sources.list"), source(mirror, suite))?;
    let config = dir.join("apt.conf");
    fs::write(&config, configuration(dir))?;
    let lists = Lists::new(config);
    eprintln!("setup: reading {suite} of {mirror}");
    process::run(
        lists
            .command("apt-get")
            .args(["--quiet", "update"])
            .stdout(io::stderr()),
    )
    .with_context(|| format!("cannot read {suite} of {mirror}"))?;
    Ok(lists)
}

/// The mirror that the machine uses for its own packages, if they are Debian's.
pub(super) fn machines_mirror() -> anyhow::Result<String> {
    let targets = process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    Ok(mirror(&targets).unwrap_or(MIRROR).to_owned())
}

/// Finds a mirror of Debian's releases among apt's index targets. Such a mirror has all suites, but one of security
/// updates (`bookworm-security`) has only those.
fn mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let found =
            words.next()? == "Debian" && !words.next()?.contains('-') && words.next()? == "main";
        words.next().filter(|_| found)
    })
}

fn source(mirror: &str, suite: &str) -> String {
    format!("deb [arch=amd64 target=Packages signed-by={KEYRING}] {mirror} {suite} main\n")
}

/// The configuration that makes apt use `dir`. apt reads it after the machine's own, which may name proxies.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{dir}/state";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
// apt's own user could not write to the directory.
APT::Sandbox::User "root";
// The machine's hooks are for the machine's lists.
#clear APT::Update;
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
// Do not wait long for a missing network: the lab can use the installed QEMU.
Acquire::Retries "0";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians() {
        let targets = "\
            Microsoft bookworm main https://packages.example/debian/12/prod/\n\
            Debian bookworm-security main http://security.example/debian-security/\n\
            $(ORIGIN) bookworm main http://unknown.example/\n\
            Debian bookworm contrib http://contrib.example/debian/\n\
            Debian bookworm main http://mirror.example/debian/\n";
        assert_eq!(mirror(targets), Some("http://mirror.example/debian/"));
        let ubuntu = "Ubuntu noble main http://archive.ubuntu.com/ubuntu/\n";
        assert_eq!(mirror(ubuntu), None);
        assert_eq!(mirror(""), None);
    }

    #[test]
    fn apt_understands_the_configuration_and_stays_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("apt.conf");
        let hook = "APT::Update::Post-Invoke { \"a-hook\"; };\n";
        fs::write(&config, hook.to_owned() + &configuration(dir.path())).unwrap();
        let config = |words: &[&str]| {
            let mut command = Command::new("apt-config");
            process::output(command.arg("--config-file").arg(&config).args(words)).unwrap()
        };
        let shown = config(&[
            "shell",
            "LISTS",
            "Dir::State::lists/d",
            "ARCHIVES",
            "Dir::Cache::archives/d",
            "SOURCES",
            "Dir::Etc::sourcelist/f",
            "MODE",
            "APT::Update::Error-Mode",
        ]);
        let dir = dir.path().display();
        assert_eq!(
            shown,
            format!(
                "LISTS='{dir}/state/lists/'\nARCHIVES='{dir}/cache/archives/'\n\
                 SOURCES='{dir}/sources.list'\nMODE='any'\n"
            )
        );
        assert!(!config(&["dump"]).contains("a-hook"));
    }
}
