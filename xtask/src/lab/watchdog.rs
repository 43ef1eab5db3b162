//! Notices that QEMU's emulated processor has stopped.
//!
//! QEMU's emulation of SVM can lose the state that lets a halted processor take interrupts. The machine then never
//! runs again. While it works, the pulse alone keeps it busy for about 10 ms per second.

use std::fs;
use std::time::Duration;

/// The interval between checks.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// Checks in a row without progress after which the processor has stopped. (Checks and not time: this machine may
/// itself have been suspended.)
const CHECKS: u32 = 9;

/// The CPU time that is progress, for one check.
const PROGRESS: Duration = Duration::from_millis(2);

/// Watches the CPU time of QEMU's threads.
pub(super) struct Watchdog {
    qemu: u32,
    used: Duration,
    idle_checks: u32,
}

impl Watchdog {
    /// A watchdog for the QEMU process `qemu`.
    pub(super) fn new(qemu: u32) -> Self {
        Self {
            qemu,
            used: Duration::ZERO,
            idle_checks: 0,
        }
    }

    /// Returns whether the processor has stopped. To be called each [`INTERVAL`].
    pub(super) fn has_stopped(&mut self) -> bool {
        processor_time(self.qemu).is_some_and(|used| self.check(used))
    }

    fn check(&mut self, used: Duration) -> bool {
        if used.saturating_sub(self.used) >= PROGRESS {
            self.idle_checks = 0;
        } else {
            self.idle_checks += 1;
        }
        self.used = used;
        self.idle_checks >= CHECKS
    }
}

/// The CPU time that the threads of `process` have used, without its first, which serves the devices.
fn processor_time(process: u32) -> Option<Duration> {
    let mut used = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let thread = thread.ok()?;
        if thread.file_name().to_str() == Some(&process.to_string()) {
            continue;
        }
        // The first field is the time on a CPU, in ns.
        let Ok(schedstat) = fs::read_to_string(thread.path().join("schedstat")) else {
            // The thread has ended.
            continue;
        };
        let ns = schedstat.split(' ').next()?.parse().ok()?;
        used += Duration::from_nanos(ns);
    }
    Some(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_without_cpu_time_has_stopped() {
        let mut watchdog = Watchdog::new(0);
        let mut used = Duration::from_secs(1);
        assert!(!watchdog.check(used));
        for _ in 1..CHECKS {
            assert!(!watchdog.check(used));
        }
        used += PROGRESS;
        assert!(!watchdog.check(used));
        let checks = (0..CHECKS).map(|_| watchdog.check(used));
        assert_eq!(checks.filter(|stopped| *stopped).count(), 1);
    }

    #[test]
    fn a_process_that_is_gone_has_no_time() {
        assert!(processor_time(std::process::id()).is_some());
        assert!(processor_time(u32::MAX).is_none());
    }
}
