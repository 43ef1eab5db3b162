//! Measures the time from the start of the process to the first guest instruction: from the tracepoint
//! `sched_process_exec` to the first `kvm_entry`.

use crate::vmm::Vmm;
use anyhow::Context;
use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use vmm_tests::Environment;

const TRACEFS: &str = "/sys/kernel/tracing";

pub(crate) fn milliseconds(vmm: Vmm, environment: &Environment) -> anyhow::Result<f64> {
    let trace = Trace::start()?;
    let running = vmm.start(
        environment,
        &environment.kernel,
        Some("console=ttyS0 quiet vmtest="),
    )?;
    let pid = running.0.id();
    let mut exec = None;
    for line in BufReader::new(File::open(trace.path("trace_pipe"))?).lines() {
        let line = line?;
        if exec.is_none() && is_exec_of(&line, pid) {
            exec = Some(seconds(&line).context("an exec event has no time")?);
        } else if let Some(exec) = exec
            && line.contains(": kvm_entry:")
        {
            let entry = seconds(&line).context("a kvm_entry event has no time")?;
            return Ok((entry - exec) * 1000.0);
        }
    }
    anyhow::bail!("the trace ended without a kvm_entry")
}

fn is_exec_of(line: &str, pid: u32) -> bool {
    line.contains(": sched_process_exec:")
        && line
            .split_whitespace()
            .any(|word| word == format!("pid={pid}"))
}

/// Parses the time in `   name-123   [001] d..1.   12.345678: event: ...`.
fn seconds(line: &str) -> Option<f64> {
    line.split_whitespace()
        .find_map(|word| word.strip_suffix(':')?.parse().ok())
}

/// A trace instance of our own; removed when dropped.
struct Trace {
    dir: PathBuf,
}

impl Trace {
    fn start() -> anyhow::Result<Self> {
        let dir = Path::new(TRACEFS).join(format!("instances/vmm_bench-{}", std::process::id()));
        fs::create_dir(&dir)
            .with_context(|| format!("cannot create a trace instance in {TRACEFS} (needs root)"))?;
        let trace = Self { dir };
        for (file, value) in [
            ("trace_clock", "mono"),
            ("events/sched/sched_process_exec/enable", "1"),
            ("events/kvm/kvm_entry/enable", "1"),
        ] {
            let path = trace.path(file);
            fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(trace)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::write(self.path("events/enable"), "0");
        let _ = fs::remove_dir(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_lines_are_parsed() {
        let exec = "  qemu-90  [001] .....   12.345678: sched_process_exec: filename=/bin/q pid=90 old_pid=90";
        assert!(is_exec_of(exec, 90));
        assert!(!is_exec_of(exec, 9));
        assert_eq!(seconds(exec), Some(12.345_678));
    }
}
