//! What to run in the lab.

use crate::guest::GuestFile;
use std::fs;
use std::path::PathBuf;
use std::thread;
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

/// What the usual machine has.
const MEMORY_MIB: u32 = 4096;

impl Lab {
    /// How many labs this machine has room for at the same time: each keeps one processor busy.
    pub(crate) fn how_many() -> usize {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let free = fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|meminfo| available_mib(&meminfo));
        // Beside the machine's memory, QEMU keeps what it translated.
        let each = usize::try_from(MEMORY_MIB).unwrap_or(usize::MAX) + 1024;
        free.map_or(1, |free| free / each).clamp(1, processors)
    }

    /// A lab for `argv` with the usual machine.
    pub(crate) fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            guest_files: Vec::new(),
            modules: Vec::new(),
            cpus: 1,
            memory_mib: MEMORY_MIB,
            time_limit: Duration::from_secs(600),
        }
    }
}

/// What `/proc/meminfo` says new programs can have without swapping, in MiB.
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
