//! `cargo xtask check-layers`: checks the dependencies between crates against the workspace's layers.

use crate::workspace;
use cargo_metadata::Metadata;
use clap::Args;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// Check that no crate depends on a layer above its own.
///
/// A crate may use crates of its own folder and of lower ones: support < vm < vmm_core < openvmm < vmm_tests < xtask.
/// Within vm: vmcore < firmware, loader, vmgs < devices. Only pal_async may use the async runtime it wraps.
#[derive(Args)]
pub(crate) struct CheckLayersArgs {}

pub(crate) fn run(_: &CheckLayersArgs) -> anyhow::Result<ExitCode> {
    verify()?;
    Ok(ExitCode::SUCCESS)
}

/// Fails if a dependency is not allowed, and prints each such dependency.
pub(crate) fn verify() -> anyhow::Result<()> {
    let metadata = workspace::metadata()?;
    let wrong = check(&packages(&metadata));
    for violation in &wrong {
        println!("layers: {violation}");
    }
    anyhow::ensure!(
        wrong.is_empty(),
        "{} dependencies are not allowed",
        wrong.len()
    );
    println!(
        "layers: {} crates, all dependencies are allowed",
        metadata.packages.len()
    );
    Ok(())
}

/// The folders of crates, and the height of each. Folders of the same height may use each other if they have the same
/// root folder.
const LAYERS: [(&str, u8); 13] = [
    ("support", 0),
    ("vm/vmcore", 1),
    ("vm/firmware", 2),
    ("vm/loader", 2),
    ("vm/vmgs", 2),
    ("vm/devices", 3),
    ("vm/hv1", 3),
    ("vm/snapshot", 3),
    ("vmm_core", 4),
    ("openvmm", 5),
    ("openhcl", 5),
    ("vmm_tests", 6),
    ("xtask", 7),
];

/// The async runtime's crates, which only [`RUNTIME_OWNER`] may use.
const RUNTIME: [&str; 9] = [
    "async-executor",
    "async-fs",
    "async-global-executor",
    "async-io",
    "async-net",
    "async-process",
    "blocking",
    "polling",
    "smol",
];

/// The crate that may use the runtime.
const RUNTIME_OWNER: &str = "pal_async";

/// A crate of the workspace.
#[derive(Debug, Clone)]
struct WorkspaceCrate {
    name: String,
    /// The folder that the crate is in: the first of [`LAYERS`] that contains it, or else the root folder.
    folder: String,
    dependencies: Vec<CrateDependency>,
}

#[derive(Debug, Clone)]
struct CrateDependency {
    name: String,
    /// Whether only tests, benches and examples use it.
    development: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Violation {
    UnknownFolder {
        name: String,
        folder: String,
    },
    Upwards {
        from: String,
        to: String,
        folders: (String, String),
    },
    Runtime {
        from: String,
        to: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFolder { name, folder } => {
                write!(f, "{name}: its folder {folder}/ is not a layer")
            }
            Self::Upwards { from, to, folders } => write!(
                f,
                "{from} -> {to}: {}/ may not use {}/",
                folders.0, folders.1
            ),
            Self::Runtime { from, to } => {
                write!(
                    f,
                    "{from} -> {to}: only {RUNTIME_OWNER} may use the async runtime"
                )
            }
        }
    }
}

fn packages(metadata: &Metadata) -> Vec<WorkspaceCrate> {
    metadata
        .packages
        .iter()
        .map(|package| WorkspaceCrate {
            name: package.name.to_string(),
            folder: package
                .manifest_path
                .strip_prefix(&metadata.workspace_root)
                .map(|path| folder(path.as_std_path()))
                .unwrap_or_default(),
            dependencies: package
                .dependencies
                .iter()
                .map(|dependency| CrateDependency {
                    name: dependency.name.clone(),
                    development: dependency.kind == cargo_metadata::DependencyKind::Development,
                })
                .collect(),
        })
        .collect()
}

fn folder(manifest: &Path) -> String {
    let layer = LAYERS.iter().find(|(layer, _)| manifest.starts_with(layer));
    match layer {
        Some((layer, _)) => (*layer).to_owned(),
        None => manifest
            .components()
            .next()
            .map(|root| root.as_os_str().to_string_lossy().into_owned())
            .unwrap_or_default(),
    }
}

fn check(packages: &[WorkspaceCrate]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for from in packages {
        let Some(height) = height(&from.folder) else {
            violations.push(Violation::UnknownFolder {
                name: from.name.clone(),
                folder: from.folder.clone(),
            });
            continue;
        };
        for dependency in &from.dependencies {
            let edge = || (from.name.clone(), dependency.name.clone());
            let to = packages.iter().find(|to| to.name == dependency.name);
            if let Some(to) = to {
                let allowed = match self::height(&to.folder) {
                    Some(other) if other == height => root(&to.folder) == root(&from.folder),
                    Some(other) => other < height,
                    None => true,
                };
                if !allowed {
                    let (name, to_name) = edge();
                    violations.push(Violation::Upwards {
                        from: name,
                        to: to_name,
                        folders: (from.folder.clone(), to.folder.clone()),
                    });
                }
            } else if RUNTIME.contains(&dependency.name.as_str())
                && from.name != RUNTIME_OWNER
                && !dependency.development
            {
                let (name, to) = edge();
                violations.push(Violation::Runtime { from: name, to });
            }
        }
    }
    violations
}

fn root(folder: &str) -> &str {
    folder.split('/').next().unwrap_or(folder)
}

fn height(folder: &str) -> Option<u8> {
    LAYERS
        .iter()
        .find(|(name, _)| *name == folder)
        .map(|(_, height)| *height)
}

#[cfg(test)]
#[path = "check_layers_test.rs"]
mod tests;
