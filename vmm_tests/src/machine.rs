//! A machine that is started again and again: what lasts is the variables of its firmware and its disks.

use crate::Environment;
use crate::Ovmf;
use crate::Vm;
use crate::VmBuilder;
use anyhow::Context;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
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
    dir: TempDir,
    disks: Vec<Disk>,
}

impl UefiMachine {
    /// A machine without disks, on the 4 MiB firmware, whose variables are as it ships them. Nothing waits for longer
    /// than `limit` after a start of it.
    pub fn new(environment: &Environment, limit: Duration) -> anyhow::Result<Self> {
        let machine = Self {
            environment: environment.clone(),
            limit,
            firmware: environment.ovmf_4m.clone(),
            dir: tempfile::Builder::new()
                .prefix("vmm-tests-machine-")
                .tempdir()?,
            disks: Vec::new(),
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
            .arg("--uefi")
            .arg("--uefi-firmware")
            .arg(&self.firmware.code)
            .arg("--uefi-vars")
            .arg(self.variables());
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

/// What tells a session of the guest's operating system from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The kernel's random name for it.
    pub boot_id: String,
    /// A random value in the memory of one of its processes.
    pub token: String,
    /// The id of the process that counts.
    pub counter_pid: u32,
    /// What it has counted to.
    pub count: u64,
}

impl Session {
    /// Asks the guest.
    pub fn ask(vm: &mut Vm) -> anyhow::Result<Self> {
        vm.type_line("session")?;
        Self::read(vm)
    }

    /// Waits for the guest to tell.
    pub fn read(vm: &mut Vm) -> anyhow::Result<Self> {
        let boot_id = vm.wait_for_guest("bootid ")?;
        let token = vm.wait_for_guest("token ")?;
        let counter = vm.wait_for_guest("counter ")?;
        let numbers = counter
            .split_once(' ')
            .and_then(|(pid, count)| Some((pid.parse().ok()?, count.parse().ok()?)));
        let (counter_pid, count) =
            numbers.with_context(|| vm.failure(&format!("the counter says {counter:?}")))?;
        Ok(Self {
            boot_id,
            token,
            counter_pid,
            count,
        })
    }

    /// Whether this is `earlier`, gone on.
    pub fn continues(&self, earlier: &Self) -> bool {
        self.boot_id == earlier.boot_id
            && self.token == earlier.token
            && self.counter_pid == earlier.counter_pid
            && self.count >= earlier.count
    }
}

/// The guest's clock, as seconds since 1970.
pub fn parse_clock(clock: &str) -> Option<(f64, u64)> {
    let (uptime, epoch) = clock.split_once(' ')?;
    Some((uptime.parse().ok()?, epoch.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_goes_on_only_as_itself() {
        let session = Session {
            boot_id: "a".to_owned(),
            token: "b".to_owned(),
            counter_pid: 7,
            count: 100,
        };
        let later = Session {
            count: 101,
            ..session.clone()
        };
        assert!(later.continues(&session) && !session.continues(&later));
        for other in [
            Session {
                boot_id: "x".to_owned(),
                ..later.clone()
            },
            Session {
                token: "x".to_owned(),
                ..later.clone()
            },
            Session {
                counter_pid: 8,
                ..later.clone()
            },
        ] {
            assert!(!other.continues(&session));
        }
    }

    #[test]
    fn clocks_are_uptime_and_epoch() {
        assert_eq!(
            parse_clock("84.68 1795244086"),
            Some((84.68, 1_795_244_086))
        );
        assert_eq!(parse_clock("84.68"), None);
    }
}
