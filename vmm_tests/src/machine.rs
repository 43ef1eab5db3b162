//! A machine that is started again and again: what lasts is the variables of its firmware and its disks.

use crate::Environment;
use crate::Ovmf;
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
pub struct Disk {
    path: PathBuf,
    serial: &'static str,
}

impl Disk {
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
    firmware: Ovmf,
    dir: Arc<TempDir>,
    disks: Vec<Disk>,
    state: State,
}

/// Where a machine's firmware keeps its variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a file of their own.
    Variables,
    /// In a VMGS file, with all else that lasts.
    Vmgs,
}

impl UefiMachine {
    /// A machine without disks, on the 4 MiB firmware, whose variables are as it ships them. Nothing waits for longer
    /// than `limit` after a start of it.
    pub fn new(environment: &Environment, limit: Duration) -> anyhow::Result<Self> {
        let machine = Self {
            environment: environment.clone(),
            limit,
            firmware: environment.ovmf_4m.clone(),
            dir: Arc::new(
                tempfile::Builder::new()
                    .prefix("vmm-tests-machine-")
                    .tempdir()?,
            ),
            disks: Vec::new(),
            state: State::Variables,
        };
        machine.reset_variables()?;
        Ok(machine)
    }

    /// Adds an empty disk, which takes no room until it is written.
    pub fn add_empty_disk(&mut self, serial: &'static str, bytes: u64) -> anyhow::Result<Disk> {
        let disk = self.new_disk(serial);
        File::create(&disk.path)
            .and_then(|file| file.set_len(bytes))
            .with_context(|| format!("cannot make the disk {}", disk.path.display()))?;
        self.disks.push(disk.clone());
        Ok(disk)
    }

    /// Adds a copy of the disk that boots by itself.
    pub fn add_boot_disk(&mut self) -> anyhow::Result<Disk> {
        let disk = self.new_disk("BOOT");
        copy(&self.environment.boot_disk, &disk.path)?;
        self.disks.push(disk.clone());
        Ok(disk)
    }

    /// Gives the machine a VMGS file, which the first start makes, and which keeps the variables from then on.
    pub fn add_vmgs(&mut self) {
        self.state = State::Vmgs;
    }

    /// The VMGS file.
    pub fn vmgs(&self) -> PathBuf {
        self.file("vmgs")
    }

    fn new_disk(&self, serial: &'static str) -> Disk {
        Disk {
            path: self.dir.path().join(format!("disk{}", self.disks.len())),
            serial,
        }
    }

    /// Replaces the firmware, as an update of the host does: with variables as the new firmware ships them, since the
    /// two builds keep them in files of different sizes.
    pub fn update_firmware(&mut self, firmware: &Ovmf) -> anyhow::Result<()> {
        self.firmware = firmware.clone();
        self.reset_variables()
    }

    /// The file of the firmware's variables.
    pub fn variables(&self) -> PathBuf {
        self.dir.path().join("vars")
    }

    /// A file of the machine's that is there for as long as it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn reset_variables(&self) -> anyhow::Result<()> {
        copy(&self.firmware.vars, &self.variables())
    }

    /// Its command line, without anything to boot but what is on its disks.
    pub fn openvmm(&self) -> VmBuilder {
        let mut builder = VmBuilder::new(&self.environment, self.limit)
            .keep(self.dir.clone())
            .arg("--uefi")
            .arg("--uefi-firmware")
            .arg(&self.firmware.code);
        builder = match self.state {
            State::Variables => builder.arg("--uefi-vars").arg(self.variables()),
            State::Vmgs => builder.arg("--vmgs").arg(self.vmgs()),
        };
        for disk in &self.disks {
            builder = builder.arg("--disk").arg(disk.argument());
        }
        builder
    }

    /// Its command line with the Linux guest, which the firmware is handed, and which runs the comma-separated
    /// `commands` before it listens to the console.
    pub fn linux(&self, commands: &str) -> VmBuilder {
        self.openvmm().kernel(&self.environment, commands)
    }
}

/// Copies contents only: what is shipped may be read-only.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = || -> std::io::Result<u64> {
        std::io::copy(&mut File::open(from)?, &mut File::create(to)?)
    };
    copied()
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
