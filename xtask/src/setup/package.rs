//! Downloads Debian packages and keeps some of their files in the cache, without installing them.

use super::apt::Lists;
use super::apt::PackageVersion;
use super::libraries;
use super::suite;
use crate::process;
use crate::workspace;
use anyhow::Context;
use sha2::Digest;
use sha2::Sha256;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// A package, or several that belong together, and which of its files to keep.
pub(crate) struct DebianPackage {
    /// The name in the cache of a link to the directory of the version in use.
    pub(super) link: &'static str,
    /// The packages. The first one gives its name and version to the directory.
    pub(super) names: &'static [PackageName],
    /// The suite of Debian's archive that it comes from.
    pub(super) suite: &'static str,
    /// A kept program that runs on this machine, and needs its shared libraries here.
    pub(super) program: Option<ForeignProgram>,
    /// Moves the files to keep from the unpacked packages (the first path) to the directory of kept files (the second).
    pub(super) keep: fn(&Path, &Path) -> anyhow::Result<()>,
}

/// A program of another release than this machine's.
#[derive(Clone, Copy)]
pub(crate) struct ForeignProgram {
    /// The program.
    pub(super) name: &'static str,
    /// The suite with libraries for it.
    pub(super) suite: &'static str,
    /// The directory of kept files for those that this machine lacks.
    pub(super) libraries: &'static str,
}

/// The name of a package.
pub(crate) enum PackageName {
    /// This name.
    Fixed(&'static str),
    /// The name of the package that this meta package depends on now.
    DependencyOf(&'static str),
}

/// The files of a package in the cache.
pub(crate) trait Unpacked: Sized {
    /// The package.
    const PACKAGE: DebianPackage;

    /// The files in this directory.
    fn at(dir: PathBuf) -> Self;

    /// Downloads the package if the cache does not have it.
    fn ensure() -> anyhow::Result<Self> {
        Self::PACKAGE.ensure().map(Self::at)
    }

    /// Downloads the newest version of the package, unless it is in the cache.
    fn fetch() -> anyhow::Result<Self> {
        Self::PACKAGE.fetch().map(Self::at)
    }

    /// Looks in the cache only.
    fn cached() -> anyhow::Result<Option<Self>> {
        Ok(Self::PACKAGE.cached()?.map(Self::at))
    }
}

impl DebianPackage {
    /// Returns the directory of kept files. Downloads the package if the cache has none.
    pub(super) fn ensure(&self) -> anyhow::Result<PathBuf> {
        match self.cached()? {
            Some(dir) => Ok(dir),
            None => self.fetch(),
        }
    }

    /// Returns the directory of kept files, if the cache has one.
    pub(super) fn cached(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(fs::canonicalize(workspace::cache()?.join(self.link)).ok())
    }

    /// Downloads the newest version, unless it is in the cache, and makes it the version in use.
    pub(super) fn fetch(&self) -> anyhow::Result<PathBuf> {
        let cache = workspace::locked_cache()?;
        let lists = tempfile::Builder::new()
            .prefix(".lists-")
            .tempdir_in(&cache.dir)?;
        let dir = self.download_newest(&suite::lists(self.suite, lists.path())?, &cache.dir)?;
        self.put_in_use(&cache.dir, &dir)?;
        Ok(dir)
    }

    fn put_in_use(&self, cache: &Path, dir: &Path) -> anyhow::Result<()> {
        let link = tempfile::Builder::new()
            .prefix(".link-")
            .tempdir_in(cache)?;
        let new = link.path().join(self.link);
        std::os::unix::fs::symlink(dir, &new)?;
        fs::rename(&new, cache.join(self.link))
            .with_context(|| format!("cannot put {} in use", dir.display()))
    }

    /// Unpacks the newest version into its own directory in `cache`, unless that exists.
    fn download_newest(&self, lists: &Lists, cache: &Path) -> anyhow::Result<PathBuf> {
        let packages = self
            .names
            .iter()
            .map(|name| {
                let name = match name {
                    PackageName::Fixed(name) => (*name).to_owned(),
                    PackageName::DependencyOf(meta) => lists.real_package(meta)?,
                };
                let candidate = lists.candidate(&name)?;
                Ok((name, candidate))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (first, candidate) = packages.first().context("no package is named")?;
        let dir = cache.join(format!("{first}_{}", candidate.version));
        if dir.exists() {
            return Ok(dir);
        }
        let work = tempfile::Builder::new()
            .prefix(".fetch-")
            .tempdir_in(cache)?;
        let tree = work.path().join("tree");
        let mut debs = Vec::new();
        for (name, candidate) in &packages {
            debs.push(unpack_version(
                lists,
                name,
                candidate,
                &work.path().join(name),
                &tree,
            )?);
        }
        let kept = work.path().join("kept");
        fs::create_dir(&kept)?;
        (self.keep)(&tree, &kept)
            .with_context(|| format!("the files of the package {first} are not as expected"))?;
        if let Some(program) = self.program {
            libraries::ensure(
                &kept.join(program.name),
                &debs,
                program.suite,
                &kept.join(program.libraries),
            )?;
        }
        fs::rename(&kept, &dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }
}

/// Downloads the newest version of `package` into the new directory `download`, and unpacks it into `tree`. Returns the
/// package file.
pub(super) fn unpack(
    lists: &Lists,
    package: &str,
    download: &Path,
    tree: &Path,
) -> anyhow::Result<PathBuf> {
    let candidate = lists.candidate(package)?;
    unpack_version(lists, package, &candidate, download, tree)
}

fn unpack_version(
    lists: &Lists,
    package: &str,
    candidate: &PackageVersion,
    download: &Path,
    tree: &Path,
) -> anyhow::Result<PathBuf> {
    eprintln!("setup: fetching {package} {}", candidate.version);
    fs::create_dir(download)?;
    lists.download(package, &candidate.version, download)?;
    let deb = package_file(download)?;
    verify(&deb, &candidate.sha256)?;
    process::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&deb)
            .arg(tree),
    )?;
    Ok(deb)
}

fn package_file(dir: &Path) -> anyhow::Result<PathBuf> {
    fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package file")
}

/// Fails unless `file` has this SHA-256, in lower-case hexadecimal.
fn verify(file: &Path, sha256: &str) -> anyhow::Result<()> {
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found: String = Sha256::digest(&content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    anyhow::ensure!(
        found == sha256,
        "{} has SHA256 {found}, but the package lists say {sha256}",
        file.display()
    );
    Ok(())
}

/// Moves a file or directory of an unpacked package.
pub(super) fn keep_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| format!("the package has no {}", from.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_package_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("x.deb");
        fs::write(&deb, "abc").unwrap();
        assert_eq!(package_file(dir.path()).unwrap(), deb);
        // FIPS 180-2, appendix B.1.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        verify(&deb, sha256).unwrap();
        fs::write(&deb, "abd").unwrap();
        assert!(verify(&deb, sha256).is_err());
    }
}
