//! The kernels that the lab and guests boot: Debian's cloud kernels.

use super::package::DebianPackage;
use super::package::PackageName;
use super::package::Unpacked;
use super::package::keep_file;
use crate::process;
use anyhow::Context;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use walkdir::WalkDir;

/// The files in the cache of Debian 12's kernel, which the lab and most guests boot.
#[derive(Debug, Clone)]
pub(crate) struct DebianKernel {
    /// Holds `vmlinuz`, `release` and `modules/`.
    pub(crate) dir: PathBuf,
}

/// Debian 13's kernel, which some guests boot.
#[derive(Debug, Clone)]
pub(crate) struct Debian13Kernel(pub(crate) DebianKernel);

impl Unpacked for DebianKernel {
    const PACKAGE: DebianPackage = DebianPackage {
        link: "kernel",
        // The meta package that always depends on the newest kernel.
        names: &[PackageName::DependencyOf("linux-image-cloud-amd64")],
        suite: "bookworm",
        program: None,
        keep,
    };

    fn at(dir: PathBuf) -> Self {
        Self { dir }
    }
}

impl Unpacked for Debian13Kernel {
    const PACKAGE: DebianPackage = DebianPackage {
        link: "kernel-13",
        suite: "trixie",
        ..DebianKernel::PACKAGE
    };

    fn at(dir: PathBuf) -> Self {
        Self(DebianKernel { dir })
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

    /// The files of the modules `names` and of all modules that they depend on, in the order to load them. Modules that are
    /// built into the kernel have none.
    pub(crate) fn modules(&self, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        let all = Modules::find(&self.dir.join("modules"))?;
        let mut ordered = Vec::new();
        for name in names {
            all.add(name, &mut ordered)?;
        }
        Ok(ordered)
    }
}

fn keep(tree: &Path, kept: &Path) -> anyhow::Result<()> {
    // Debian 13 has no /lib in packages.
    let lib = [tree.join("lib/modules"), tree.join("usr/lib/modules")];
    let lib = lib.iter().find(|dir| dir.exists());
    let modules = only_entry(lib.context("the package has no modules")?)?;
    let release = modules
        .file_name()
        .and_then(|name| name.to_str())
        .context("the package's module directory has no readable name")?;
    keep_file(
        &tree.join(format!("boot/vmlinuz-{release}")),
        &kept.join("vmlinuz"),
    )?;
    fs::write(kept.join("release"), format!("{release}\n"))?;
    decompress(&modules)?;
    fs::rename(&modules, kept.join("modules")).context("cannot keep the modules")
}

/// Decompresses the modules in `dir`: busybox's insmod takes only uncompressed ones.
fn decompress(dir: &Path) -> anyhow::Result<()> {
    let mut compressed = Vec::new();
    for entry in WalkDir::new(dir) {
        let path = entry
            .context("cannot list the kernel's modules")?
            .into_path();
        if path.extension().is_some_and(|extension| extension == "xz") {
            compressed.push(path);
        }
    }
    // A command line has room for some thousand paths.
    for paths in compressed.chunks(500) {
        process::run(Command::new("xz").args(["--decompress", "--"]).args(paths))?;
    }
    Ok(())
}

fn only_entry(dir: &Path) -> anyhow::Result<PathBuf> {
    let context = || format!("expected one entry in {}", dir.display());
    let mut entries = fs::read_dir(dir).with_context(context)?;
    let entry = entries.next().with_context(context)??;
    anyhow::ensure!(entries.next().is_none(), context());
    Ok(entry.path())
}

/// The modules of a kernel, by their names as `modprobe` prints them.
struct Modules {
    files: HashMap<String, PathBuf>,
    built_in: HashSet<String>,
}

impl Modules {
    /// Finds the modules under `dir`, and those that its `modules.builtin` lists.
    fn find(dir: &Path) -> anyhow::Result<Self> {
        let mut files = HashMap::new();
        for entry in WalkDir::new(dir) {
            let path = entry
                .context("cannot list the kernel's modules")?
                .into_path();
            if let Some(name) = module_name(&path) {
                files.insert(name, path);
            }
        }
        let list = dir.join("modules.builtin");
        let built_in = match fs::read_to_string(&list) {
            Ok(paths) => paths
                .lines()
                .map(Path::new)
                .filter_map(module_name)
                .collect(),
            Err(err) if err.kind() == io::ErrorKind::NotFound => HashSet::new(),
            Err(err) => return Err(err).with_context(|| format!("cannot read {}", list.display())),
        };
        Ok(Self { files, built_in })
    }

    /// Adds the module `name` to `ordered`, after those that it depends on.
    fn add(&self, name: &str, ordered: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        let name = same_dashes(name);
        if self.built_in.contains(&name) {
            return Ok(());
        }
        let path = self
            .files
            .get(&name)
            .with_context(|| format!("the kernel has no module {name}"))?;
        if ordered.contains(path) {
            return Ok(());
        }
        let module = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        for dependency in dependencies(&module) {
            self.add(&dependency, ordered)?;
        }
        ordered.push(path.clone());
        Ok(())
    }
}

/// The module's name, if `path` is a module's.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".ko")?;
    Some(same_dashes(name))
}

/// In module names, `-` and `_` are the same.
fn same_dashes(name: &str) -> String {
    name.replace('-', "_")
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
        fs::write(
            dir.path().join("modules/modules.builtin"),
            "kernel/drivers/virtio/virtio_pci.ko\nkernel/x/irq-bypass.ko\n",
        )
        .unwrap();
        let base = modules.join("base.ko");
        assert_eq!(kernel.modules(&["virtio-pci", "base"]).unwrap(), [base]);
    }

    #[test]
    fn compressed_modules_are_decompressed() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("kernel");
        fs::create_dir(&modules).unwrap();
        module(&modules, "virtio_blk", "");
        let path = modules.join("virtio_blk.ko");
        let plain = fs::read(&path).unwrap();
        process::run(Command::new("xz").arg(&path)).unwrap();
        assert!(!path.exists());
        decompress(dir.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), plain);
    }
}
