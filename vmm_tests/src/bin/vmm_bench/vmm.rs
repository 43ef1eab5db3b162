//! The two programs, given the same machine to make.

use anyhow::Context;
use clap::ValueEnum;
use std::collections::VecDeque;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use vmm_tests::Environment;
use vmm_tests::Tap;

/// Guest memory, in MiB.
pub(crate) const MEMORY_MIB: u64 = 512;

/// How many lines of output go into the message of a failure.
const TAIL: usize = 20;

/// A VMM to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vmm {
    Openvmm,
    Qemu,
}

impl Vmm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Openvmm => "openvmm",
            Self::Qemu => "qemu",
        }
    }

    /// Starts it with one processor and the serial port on standard output.
    pub(crate) fn start(
        self,
        environment: &Environment,
        kernel: &Path,
        linux_command_line: Option<&str>,
    ) -> anyhow::Result<Running> {
        let mut command = match self {
            Self::Openvmm => Command::new(&environment.openvmm),
            Self::Qemu => Command::new("qemu-system-x86_64"),
        };
        let (initrd, cmdline) = match self {
            Self::Openvmm => {
                command.args(["-p", "1", "-m", &format!("{MEMORY_MIB}M"), "--kernel"]);
                ("--initrd", "--cmdline")
            }
            Self::Qemu => {
                command
                    .args(["-M", "q35", "-enable-kvm", "-cpu", "host", "-smp", "1"])
                    .args(["-m", &MEMORY_MIB.to_string()])
                    .args(["-nodefaults", "-display", "none", "-no-reboot"])
                    .args(["-serial", "stdio", "-kernel"]);
                ("-initrd", "-append")
            }
        };
        command.arg(kernel);
        if let Some(line) = linux_command_line {
            command.arg(initrd).arg(&environment.initrd);
            command.arg(cmdline).arg(line);
        }
        self.spawn(command)
    }

    /// Starts it with UEFI firmware, one processor and the serial port on standard output.
    pub(crate) fn start_uefi(
        self,
        environment: &Environment,
        machine: &UefiMachine<'_>,
    ) -> anyhow::Result<Running> {
        let (code, vars) = (
            environment.ovmf_4m.code.display(),
            machine.variables.display(),
        );
        let mut command;
        match self {
            Self::Openvmm => {
                command = Command::new(&environment.openvmm);
                command
                    .args(["-p", "1", "-m", &format!("{MEMORY_MIB}M"), "--uefi"])
                    .args(["--hibernation", "on"])
                    .args(["--uefi-firmware", &code.to_string()])
                    .args(["--uefi-vars", &vars.to_string()]);
                if let Some(store) = machine.store {
                    command.arg("--vmgs").arg(store);
                }
                if let Some(disk) = machine.disk {
                    command.args(["--disk", &format!("file:{}", disk.display())]);
                }
                if let Some(tap) = machine.tap {
                    command.args(["--net", &tap.argument()]);
                }
                command.arg("--kernel").arg(&environment.kernel);
                command.arg("--initrd").arg(machine.initrd);
                command.args(["--cmdline", machine.cmdline]);
            }
            Self::Qemu => {
                command = Command::new("qemu-system-x86_64");
                let flash =
                    |unit: u32, rest: String| format!("if=pflash,format=raw,unit={unit},{rest}");
                command
                    .args(["-M", "q35", "-enable-kvm", "-cpu", "host", "-smp", "1"])
                    .args(["-m", &MEMORY_MIB.to_string()])
                    .args(["-nodefaults", "-display", "none", "-no-reboot"])
                    .args(["-serial", "stdio"])
                    .args(["-drive", &flash(0, format!("readonly=on,file={code}"))])
                    .args(["-drive", &flash(1, format!("file={vars}"))]);
                if let Some(disk) = machine.disk {
                    let drive = format!(
                        "if=none,id=disk,format=raw,aio=io_uring,file={}",
                        disk.display()
                    );
                    command.args(["-drive", &drive]);
                    command.args(["-device", "virtio-blk-pci,drive=disk"]);
                }
                if let Some(tap) = machine.tap {
                    let interface = tap.name();
                    let netdev = format!("tap,id=net,ifname={interface},script=no,downscript=no");
                    command.args(["-netdev", &netdev]);
                    command.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
                }
                command.arg("-kernel").arg(&environment.kernel);
                command.arg("-initrd").arg(machine.initrd);
                command.args(["-append", machine.cmdline]);
            }
        }
        self.spawn(command)
    }

    fn spawn(self, mut command: Command) -> anyhow::Result<Running> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.name()))?;
        Ok(Running(child))
    }
}

/// What a UEFI guest is started with.
pub(crate) struct UefiMachine<'a> {
    /// The file of its variables, which is written.
    pub(crate) variables: &'a Path,
    pub(crate) initrd: &'a Path,
    pub(crate) cmdline: &'a str,
    pub(crate) disk: Option<&'a Path>,
    pub(crate) tap: Option<&'a Tap>,
    /// The file in which openvmm keeps the guest's firmware. Made if it is not there.
    pub(crate) store: Option<&'a Path>,
}

/// A running VMM; killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// The lines that it prints.
    pub(crate) fn lines(&mut self) -> anyhow::Result<Lines> {
        let output = self.0.stdout.take().context("no output")?;
        Ok(Lines(BufReader::new(output)))
    }
}

/// The lines that a VMM prints, and its guest.
pub(crate) struct Lines(BufReader<ChildStdout>);

impl Lines {
    /// Waits for what the guest's init says of `topic`: the rest of that line.
    pub(crate) fn wait_for_guest(&mut self, topic: &str) -> anyhow::Result<String> {
        let wanted = format!("vmtest: {topic}");
        let mut tail = VecDeque::new();
        let mut line = Vec::new();
        while self.0.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if let Some((_, rest)) = text.split_once(&wanted) {
                return Ok(rest.trim().to_owned());
            }
            tail.push_back(text);
            if tail.len() > TAIL {
                tail.pop_front();
            }
        }
        let tail = Vec::from(tail).join("\n");
        anyhow::bail!("the output ended without {wanted:?}; its last lines:\n{tail}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
