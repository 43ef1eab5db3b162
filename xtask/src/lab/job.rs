//! The description of a run in the lab.

use crate::guest::GuestFile;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// A file of the host that is copied into the lab.
#[derive(Debug, Clone)]
pub(crate) struct InFile {
    pub(crate) source: PathBuf,
    /// Its path in the lab, absolute or relative to the command's directory.
    pub(crate) name: String,
}

/// A file that the command writes in the lab, and that is copied to the host.
#[derive(Debug, Clone)]
pub(crate) struct OutFile {
    /// Its path in the lab, absolute or relative to the command's directory.
    pub(crate) name: String,
    pub(crate) target: PathBuf,
}

/// One run of the lab.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Environment variables besides `PATH`, `HOME` and `TERM`.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) inputs: Vec<InFile>,
    pub(crate) outputs: Vec<OutFile>,
    /// The guest's files to copy into `/guest`.
    pub(crate) guest_files: Vec<GuestFile>,
    /// One of the guest's files that is the disk [`DISK`](super::DISK) instead: the lab's memory is too small for it.
    pub(crate) disk: Option<GuestFile>,
    /// Kernel modules besides those for KVM and for the ports to the host.
    pub(crate) modules: Vec<String>,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    /// How long the whole run may take, boot included.
    pub(crate) time_limit: Duration,
}

/// The memory of the default machine.
const MEMORY_MIB: u32 = 4096;

impl Lab {
    /// How many labs this machine can run at the same time: each keeps one processor busy.
    pub(crate) fn how_many() -> usize {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let free = fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|meminfo| available_mib(&meminfo));
        // Besides the lab's memory, QEMU needs room for translated code.
        let each = usize::try_from(MEMORY_MIB).unwrap_or(usize::MAX) + 1024;
        free.map_or(1, |free| free / each).clamp(1, processors)
    }

    /// Creates a lab that runs `argv` on the default machine.
    pub(crate) fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            guest_files: Vec::new(),
            disk: None,
            modules: Vec::new(),
            cpus: 1,
            memory_mib: MEMORY_MIB,
            time_limit: Duration::from_secs(600),
        }
    }
}

/// The memory available to new programs without swapping, in MiB, from the content of `/proc/meminfo`.
fn available_mib(meminfo: &str) -> Option<usize> {
    meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemAvailable:")?.strip_suffix("kB")?;
        kib.trim().parse::<usize>().ok().map(|kib| kib / 1024)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let meminfo = "MemTotal:       24615320 kB\nMemAvailable:   23068672 kB\nBuffers: 1 kB\n";
        assert_eq!(available_mib(meminfo), Some(22528));
        assert_eq!(available_mib("MemTotal: 1 kB\n"), None);
    }
}
