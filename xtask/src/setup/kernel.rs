//! The kernel that the lab and its guests boot: Debian's cloud kernel.

use super::package::DebianPackage;
use super::package::PackageName;
use super::package::PackageSource;
use super::package::Unpacked;
use super::package::keep_file;
use anyhow::Context;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use walkdir::WalkDir;

/// The kernel's files in the cache.
#[derive(Debug, Clone)]
pub(crate) struct DebianKernel {
    /// Holds `vmlinuz`, `release` and `modules/`.
    pub(crate) dir: PathBuf,
}

impl Unpacked for DebianKernel {
    const PACKAGE: DebianPackage = DebianPackage {
        link: "kernel",
        // The meta package that always depends on the newest kernel.
        names: &[PackageName::DependencyOf("linux-image-cloud-amd64")],
        source: PackageSource::Machine,
        program: None,
        keep,
    };

    fn at(dir: PathBuf) -> Self {
        Self { dir }
    }
}

impl DebianKernel {
    /// The boot image.
    pub(crate) fn vmlinuz(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The kernel's release, as `uname -r` prints it.
    pub(crate) fn release(&self) -> anyhow::Result<String> {
        let path = self.dir.join("release");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim_end().to_owned())
    }

    /// The files of the modules `names` and of all modules that they depend on, in the order to load them.
    pub(crate) fn modules(&self, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        let all = find_modules(&self.dir.join("modules"))?;
        let mut ordered = Vec::new();
        for name in names {
            add_module(&all, name, &mut ordered)?;
        }
        Ok(ordered)
    }
}

fn keep(tree: &Path, kept: &Path) -> anyhow::Result<()> {
    let modules = only_entry(&tree.join("lib/modules"))?;
    let release = modules
        .file_name()
        .and_then(|name| name.to_str())
        .context("the package's module directory has no readable name")?;
    keep_file(
        &tree.join(format!("boot/vmlinuz-{release}")),
        &kept.join("vmlinuz"),
    )?;
    fs::write(kept.join("release"), format!("{release}\n"))?;
    fs::rename(&modules, kept.join("modules")).context("cannot keep the modules")
}

fn only_entry(dir: &Path) -> anyhow::Result<PathBuf> {
    let context = || format!("expected one entry in {}", dir.display());
    let mut entries = fs::read_dir(dir).with_context(context)?;
    let entry = entries.next().with_context(context)??;
    anyhow::ensure!(entries.next().is_none(), context());
    Ok(entry.path())
}

/// Finds the module files under `dir`. Returns their names as `modprobe` prints them, and their paths.
fn find_modules(dir: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in WalkDir::new(dir) {
        let entry = entry.context("cannot list the kernel's modules")?;
        let file_name = entry.file_name().to_string_lossy();
        if let Some(name) = file_name.strip_suffix(".ko") {
            found.push((module_name(name), entry.path().to_owned()));
        }
    }
    Ok(found)
}

/// In module names, `-` and `_` are the same.
fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

fn add_module(
    all: &[(String, PathBuf)],
    name: &str,
    ordered: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let name = module_name(name);
    let (_, path) = all
        .iter()
        .find(|(found, _)| *found == name)
        .with_context(|| format!("the kernel has no module {name}"))?;
    if ordered.contains(path) {
        return Ok(());
    }
    let module = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    for dependency in dependencies(&module) {
        add_module(all, &dependency, ordered)?;
    }
    ordered.push(path.clone());
    Ok(())
}

/// Reads the dependencies in the information section of `module`, an ELF file.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let list = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(list.unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(dir: &Path, name: &str, depends: &str) {
        fs::write(
            dir.join(format!("{name}.ko")),
            format!("\x7fELF\0license=GPL\0depends={depends}\0retpoline=Y\0"),
        )
        .unwrap();
    }

    #[test]
    fn modules_come_after_what_they_depend_on_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("modules/kernel/x");
        fs::create_dir_all(&modules).unwrap();
        module(&modules, "kvm-amd", "kvm");
        module(&modules, "kvm", "irqbypass,base");
        module(&modules, "irqbypass", "");
        module(&modules, "base", "");
        let kernel = DebianKernel {
            dir: dir.path().to_owned(),
        };
        let names: Vec<_> = kernel
            .modules(&["kvm_amd", "base"])
            .unwrap()
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["irqbypass", "base", "kvm", "kvm-amd"]);
        assert!(kernel.modules(&["nonesuch"]).is_err());
    }
}
