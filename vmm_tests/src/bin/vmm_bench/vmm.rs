//! The two programs, given the same machine to make.

use anyhow::Context;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use vmm_tests::Environment;

/// Guest memory, in MiB.
pub(crate) const MEMORY_MIB: u64 = 512;

/// A VMM to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vmm {
    Openvmm,
    Qemu,
}

impl Vmm {
    /// In the order in which they take turns.
    pub(crate) const ALL: [Self; 2] = [Self::Openvmm, Self::Qemu];

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
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.name()))?;
        Ok(Running(child))
    }
}

/// A running VMM; killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
