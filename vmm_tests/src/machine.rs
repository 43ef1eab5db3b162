//! A machine that can be started several times: its firmware's variables and its disks are kept.

use crate::Environment;
use crate::MadeIgvm;
use crate::OvmfBuild;
use crate::VmBuilder;
use anyhow::Context;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A disk's file.
#[derive(Debug, Clone)]
pub struct DiskFile {
    path: PathBuf,
    serial: &'static str,
}

impl DiskFile {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `--disk` is given.
    pub fn argument(&self) -> OsString {
        let mut argument = OsString::from("file:");
        argument.push(&self.path);
        argument.push(format!(",serial={}", self.serial));
        argument
    }
}

/// A machine with UEFI firmware.
#[derive(Debug)]
pub struct UefiMachine {
    environment: Environment,
    limit: Duration,
    firmware: OvmfBuild,
    /// The same in an IGVM file, which is what openvmm gets then.
    packed: Option<MadeIgvm>,
    dir: Arc<TempDir>,
    disks: Vec<DiskFile>,
    state: VariableStore,
}

/// Where a machine's firmware keeps its variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VariableStore {
    /// In their own file.
    Variables,
    /// In the VMGS file.
    Vmgs,
}

impl UefiMachine {
    /// A machine without disks, with the 4 MiB firmware and a copy of its variables' template. All waits end `limit` after
    /// a start at the latest.
    pub fn new(environment: &Environment, limit: Duration) -> anyhow::Result<Self> {
        let machine = Self {
            environment: environment.clone(),
            limit,
            firmware: environment.ovmf_4m.clone(),
            packed: None,
            dir: Arc::new(
                tempfile::Builder::new()
                    .prefix("vmm-tests-machine-")
                    .tempdir()?,
            ),
            disks: Vec::new(),
            state: VariableStore::Variables,
        };
        machine.reset_variables()?;
        Ok(machine)
    }

    /// Adds a disk to hibernate to, with room for the memory of a guest of 512 MiB.
    pub fn add_swap_disk(&mut self) -> anyhow::Result<DiskFile> {
        self.add_empty_disk("SWAP", 1 << 30)
    }

    /// Adds an empty disk in a sparse file.
    pub fn add_empty_disk(&mut self, serial: &'static str, bytes: u64) -> anyhow::Result<DiskFile> {
        let disk = self.new_disk(serial);
        File::create(&disk.path)
            .and_then(|file| file.set_len(bytes))
            .with_context(|| format!("cannot make the disk {}", disk.path.display()))?;
        self.disks.push(disk.clone());
        Ok(disk)
    }

    /// Adds a copy of the bootable disk.
    pub fn add_boot_disk(&mut self) -> anyhow::Result<DiskFile> {
        let disk = self.new_disk("BOOT");
        copy(&self.environment.boot_disk, &disk.path)?;
        self.disks.push(disk.clone());
        Ok(disk)
    }

    /// Adds the disk with an installation of Debian: the one there is, not a copy.
    pub fn add_installed_disk(&mut self) -> anyhow::Result<DiskFile> {
        let path = self.environment.installed_disk.clone();
        let disk = DiskFile {
            path: path.context("VMM_TESTS_INSTALLED_DISK is not set")?,
            serial: "INSTALLED",
        };
        self.disks.push(disk.clone());
        Ok(disk)
    }

    /// Gives the machine a VMGS file, which the first start creates. It keeps the variables from then on.
    pub fn add_vmgs(&mut self) {
        self.state = VariableStore::Vmgs;
    }

    /// The VMGS file.
    pub fn vmgs(&self) -> PathBuf {
        self.file("vmgs")
    }

    fn new_disk(&self, serial: &'static str) -> DiskFile {
        DiskFile {
            path: self.dir.path().join(format!("disk{}", self.disks.len())),
            serial,
        }
    }

    /// Replaces the firmware, as an update of the host does. Its variables start from the new firmware's template: the
    /// sizes of the two builds' variables are different.
    pub fn update_firmware(&mut self, firmware: &OvmfBuild) -> anyhow::Result<()> {
        self.firmware = firmware.clone();
        self.packed = None;
        self.reset_variables()
    }

    /// Packs the firmware in an IGVM file.
    pub fn pack_firmware(&mut self) -> anyhow::Result<()> {
        self.packed = Some(MadeIgvm::ovmf(&self.environment, &self.firmware)?);
        Ok(())
    }

    /// The file of the firmware's variables.
    pub fn variables(&self) -> PathBuf {
        self.dir.path().join("vars")
    }

    /// The path of a file in the machine's directory, which is deleted with it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn reset_variables(&self) -> anyhow::Result<()> {
        copy(&self.firmware.vars, &self.variables())
    }

    /// Its command line, without a kernel: the firmware boots from the disks.
    pub fn openvmm(&self) -> VmBuilder {
        let mut builder = match &self.packed {
            Some(igvm) => igvm.openvmm(&self.environment, self.limit, "uefi,profile=pc-uefi"),
            None => VmBuilder::new(&self.environment, self.limit)
                .arg("--uefi")
                .arg("--uefi-firmware")
                .arg(&self.firmware.code),
        };
        builder = builder.keep(self.dir.clone());
        builder = match self.state {
            VariableStore::Variables => builder.arg("--uefi-vars").arg(self.variables()),
            VariableStore::Vmgs => builder.arg("--vmgs").arg(self.vmgs()),
        };
        for disk in &self.disks {
            builder = builder.arg("--disk").arg(disk.argument());
        }
        builder
    }

    /// Its command line with the Linux guest, which the firmware starts, and which executes the comma-separated `commands`
    /// and then reads commands from the console.
    pub fn linux(&self, commands: &str) -> VmBuilder {
        self.openvmm().kernel(&self.environment, commands)
    }

    /// Its command line with the Linux guest, which can hibernate.
    pub fn hibernating(&self) -> VmBuilder {
        self.linux("").args(["--hibernation", "on"])
    }
}

/// Copies the content, but not the permissions: the original may be read-only.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = || -> std::io::Result<u64> {
        std::io::copy(&mut File::open(from)?, &mut File::create(to)?)
    };
    copied()
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
