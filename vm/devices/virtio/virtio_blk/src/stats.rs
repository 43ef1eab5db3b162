//! What went through a device, and its errors in the log.

use parking_lot::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// Errors logged in a row, before there has to be some time between them.
const BURST: u32 = 5;
/// One more may be logged after this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts since the device was made.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) others: AtomicU64,
    pub(crate) failed: AtomicU64,
    log: Mutex<Allowance>,
}

/// How much may be logged.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Option<Instant>,
    suppressed: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            left: BURST,
            since: None,
            suppressed: 0,
        }
    }
}

impl Allowance {
    /// Whether to log now, and how many were not logged before.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= INTERVAL {
            self.since = Some(now);
            self.left = (self.left + 1).min(BURST);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed += 1;
                None
            }
        }
    }
}

impl Stats {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts an error, and logs it unless there were many.
    pub(crate) fn failed(&self, device: &str, disk: &str, error: &dyn std::error::Error) {
        Self::add(&self.failed, 1);
        if let Some(suppressed) = self.log.lock().take(Instant::now()) {
            let cause = error.source().map(tracing::field::display);
            tracing::warn!(device, disk, %error, cause, suppressed, "disk I/O failed");
        }
    }

    pub(crate) fn inspect(&self) -> serde_json::Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        serde_json::json!({
            "reads": get(&self.reads),
            "read_bytes": get(&self.read_bytes),
            "writes": get(&self.writes),
            "written_bytes": get(&self.written_bytes),
            "flushes": get(&self.flushes),
            "others": get(&self.others),
            "failed": get(&self.failed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_cut_off_and_counted() {
        let mut allowance = Allowance::default();
        let start = Instant::now();
        for _ in 0..BURST {
            assert_eq!(allowance.take(start), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(allowance.take(start), None);
        }
        assert_eq!(allowance.take(start + INTERVAL), Some(100));
        assert_eq!(allowance.take(start + INTERVAL), None);
    }
}
