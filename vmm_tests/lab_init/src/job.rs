//! The job: one command, and its surroundings.

use serde::Deserialize;
use serde::Serialize;

/// The path of the job description in the lab's initramfs.
pub const JOB_PATH: &str = "/lab/job.json";

/// The command's working directory.
pub const WORK_DIR: &str = "/work";

/// The names of the virtio-serial ports between the lab and the host.
pub mod port {
    /// The command's standard input, in the chunks of [`crate::stdin`].
    pub const STDIN: &str = "lab.stdin";
    /// The command's standard output.
    pub const STDOUT: &str = "lab.stdout";
    /// The command's standard error.
    pub const STDERR: &str = "lab.stderr";
    /// The [`LabReport`](crate::LabReport) and the files that follow it.
    pub const REPORT: &str = "lab.report";
    /// A byte from the host now and then, for its interrupt: QEMU's emulation sometimes loses an interrupt until the
    /// next one arrives.
    pub const PULSE: &str = "lab.pulse";
}

/// A kernel module to load before the command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// The module file in the initramfs.
    pub path: String,
    /// Its parameters, as on a `modprobe` command line.
    pub params: String,
}

/// What the lab runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabJob {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The whole environment of the command.
    pub env: Vec<(String, String)>,
    /// Kernel modules in the order to load them.
    pub modules: Vec<Module>,
    /// Whether the host sends standard input; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// The size (columns, rows) of the terminal to run the command on; `None` runs it on pipes.
    pub terminal: Option<(u16, u16)>,
    /// Files to send to the host when the command has ended.
    pub out: Vec<String>,
}
