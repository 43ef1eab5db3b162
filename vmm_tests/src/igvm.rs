//! IGVM files of the guests' files, made by igvmfilegen.

use crate::Environment;
use crate::OvmfBuild;
use crate::VmBuilder;
use anyhow::Context;
use anyhow::ensure;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// An IGVM file in a directory of its own.
#[derive(Debug)]
pub struct MadeIgvm {
    dir: Arc<TempDir>,
    path: PathBuf,
}

impl MadeIgvm {
    /// Packs the Linux guest's kernel and initramfs by the manifest that is part of the source. The file takes a command
    /// line.
    pub fn linux(environment: &Environment) -> anyhow::Result<Self> {
        let manifest = include_str!("../../vm/loader/manifests/linux-x64.json");
        let resources = json!({"resources": {
            "linux_kernel": absolute(&environment.kernel)?,
            "linux_initrd": absolute(&environment.initrd)?,
        }});
        Self::make(environment, "linux-x64", manifest, &resources)
    }

    /// Packs OVMF and its variables by the manifest that is part of the source.
    pub fn ovmf(environment: &Environment, build: &OvmfBuild) -> anyhow::Result<Self> {
        let manifest = include_str!("../../vm/loader/manifests/ovmf-x64.json");
        let resources = json!({"resources": {
            "ovmf_code": absolute(&build.code)?,
            "ovmf_vars": absolute(&build.vars)?,
        }});
        Self::make(environment, "ovmf-x64", manifest, &resources)
    }

    /// Packs the test firmware by the manifest that is part of the source.
    pub fn uefi(environment: &Environment) -> anyhow::Result<Self> {
        let manifest = include_str!("../../vm/loader/manifests/uefi-x64.json");
        let resources = json!({"resources": {"uefi": absolute(&environment.test_firmware)?}});
        Self::make(environment, "uefi-x64", manifest, &resources)
    }

    fn make(
        environment: &Environment,
        name: &str,
        manifest: &str,
        resources: &serde_json::Value,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("igvm-").tempdir()?;
        let file = |name: &str| dir.path().join(name);
        let (manifest_path, resources_path) = (file("manifest.json"), file("resources.json"));
        fs::write(&manifest_path, manifest)?;
        fs::write(&resources_path, resources.to_string())?;
        let path = file(&format!("{name}.igvm"));
        let mut command = Command::new(&environment.igvmfilegen);
        command
            .arg("manifest")
            .arg("--manifest")
            .arg(&manifest_path)
            .arg("--resources")
            .arg(&resources_path)
            .arg("--output")
            .arg(&path);
        let output = command
            .output()
            .with_context(|| format!("cannot run {}", environment.igvmfilegen.display()))?;
        ensure!(
            output.status.success(),
            "igvmfilegen ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Self {
            path,
            dir: Arc::new(dir),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is where in guest memory, in words.
    pub fn map(&self) -> anyhow::Result<String> {
        let path = self.path.with_extension("igvm.map");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// openvmm with this file, whose guest has the type `guest_type`.
    pub fn openvmm(
        &self,
        environment: &Environment,
        limit: Duration,
        guest_type: &str,
    ) -> VmBuilder {
        VmBuilder::new(environment, limit)
            .keep(self.dir.clone())
            .arg("--igvm")
            .arg(format!("type={guest_type},path={}", self.path.display()))
    }

    /// openvmm with this file of [`Self::linux`], whose guest executes the comma-separated `commands` and then reads
    /// commands from the console.
    pub fn openvmm_linux(
        &self,
        environment: &Environment,
        limit: Duration,
        commands: &str,
    ) -> VmBuilder {
        self.openvmm(environment, limit, "linux")
            .arg("--cmdline")
            .arg(format!("console=ttyS0 quiet vmtest={commands}"))
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
}
