//! Starts openvmm or QEMU with the same machine.

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
use vmm_tests::HostTap;

/// Guest memory, in MiB.
pub(crate) const MEMORY_MIB: u64 = 512;

/// How many lines of output an error shows.
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
    ) -> anyhow::Result<RunningVmm> {
        let mut command = self.command(environment);
        let [kernel_option, initrd, cmdline] = self.linux_options();
        command.arg(kernel_option).arg(kernel);
        if let Some(line) = linux_command_line {
            command.arg(initrd).arg(&environment.initrd);
            command.args([cmdline, line]);
        }
        self.spawn(command)
    }

    /// Starts it with UEFI firmware, one processor and the serial port on standard output.
    pub(crate) fn start_uefi(
        self,
        environment: &Environment,
        machine: &BenchMachine<'_>,
    ) -> anyhow::Result<RunningVmm> {
        let (code, vars) = (
            environment.ovmf_4m.code.display(),
            machine.variables.display(),
        );
        let mut command = self.command(environment);
        match self {
            Self::Openvmm => {
                command
                    .args(["--uefi", "--hibernation", "on"])
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
            }
            Self::Qemu => {
                let flash =
                    |unit: u32, rest: String| format!("if=pflash,format=raw,unit={unit},{rest}");
                command
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
            }
        }
        let [kernel, initrd, cmdline] = self.linux_options();
        command.arg(kernel).arg(&environment.kernel);
        command.arg(initrd).arg(machine.initrd);
        command.args([cmdline, machine.cmdline]);
        self.spawn(command)
    }

    /// The command line of the machine, without anything to boot.
    fn command(self, environment: &Environment) -> Command {
        match self {
            Self::Openvmm => {
                let mut command = Command::new(&environment.openvmm);
                command.args(["-p", "1", "-m", &format!("{MEMORY_MIB}M")]);
                command
            }
            Self::Qemu => {
                let mut command = Command::new("qemu-system-x86_64");
                command
                    .args(["-M", "q35", "-enable-kvm", "-cpu", "host", "-smp", "1"])
                    .args(["-m", &MEMORY_MIB.to_string()])
                    .args(["-nodefaults", "-display", "none", "-no-reboot"])
                    .args(["-serial", "stdio"]);
                command
            }
        }
    }

    /// The options for kernel, initramfs and kernel command line.
    fn linux_options(self) -> [&'static str; 3] {
        match self {
            Self::Openvmm => ["--kernel", "--initrd", "--cmdline"],
            Self::Qemu => ["-kernel", "-initrd", "-append"],
        }
    }

    fn spawn(self, mut command: Command) -> anyhow::Result<RunningVmm> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.name()))?;
        Ok(RunningVmm(child))
    }
}

/// A machine with UEFI firmware.
pub(crate) struct BenchMachine<'a> {
    /// The file of its variables, which the guest writes to.
    pub(crate) variables: &'a Path,
    pub(crate) initrd: &'a Path,
    pub(crate) cmdline: &'a str,
    pub(crate) disk: Option<&'a Path>,
    pub(crate) tap: Option<&'a HostTap>,
    /// openvmm's VMGS file, created if it does not exist.
    pub(crate) store: Option<&'a Path>,
}

/// A running VMM; killed when dropped.
pub(crate) struct RunningVmm(pub(crate) Child);

impl RunningVmm {
    /// Its output.
    pub(crate) fn lines(&mut self) -> anyhow::Result<GuestLines> {
        let output = self.0.stdout.take().context("no output")?;
        Ok(GuestLines(BufReader::new(output)))
    }
}

/// The output of a VMM and its guest, by lines.
pub(crate) struct GuestLines(BufReader<ChildStdout>);

impl GuestLines {
    /// Waits for a line of the guest's init: `vmtest: ` and `topic`. Returns the rest of the line.
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

impl Drop for RunningVmm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
