//! What to run in the lab.

use crate::guest::GuestFile;
use std::path::PathBuf;
use std::time::Duration;

/// A file of the host that the command finds in the lab.
#[derive(Debug, Clone)]
pub(crate) struct InFile {
    pub(crate) source: PathBuf,
    /// Its name in the lab, absolute or in the directory that the command starts in.
    pub(crate) name: String,
}

/// A file that the command leaves in the lab, and that the host gets.
#[derive(Debug, Clone)]
pub(crate) struct OutFile {
    /// Its name in the lab, absolute or in the directory that the command starts in.
    pub(crate) name: String,
    pub(crate) target: PathBuf,
}

/// One run of the lab.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Environment variables beside `PATH`, `HOME` and `TERM`.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) inputs: Vec<InFile>,
    pub(crate) outputs: Vec<OutFile>,
    /// What there is of the guest, in a directory of its own.
    pub(crate) guest_files: Vec<GuestFile>,
    /// Kernel modules beside those for KVM and for talking to the host.
    pub(crate) modules: Vec<String>,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    /// How long the whole run may take, boot included.
    pub(crate) time_limit: Duration,
}

impl Lab {
    /// A lab for `argv` with the usual machine.
    pub(crate) fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            guest_files: Vec::new(),
            modules: Vec::new(),
            cpus: 2,
            memory_mib: 4096,
            time_limit: Duration::from_secs(600),
        }
    }
}
