//! Counters of a device, and its errors in the log.

use disk_backend::DiskError;
use log_limit::LogLimit;
use std::error::Error as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Counters since the device was created.
#[derive(Debug, Default)]
pub(crate) struct BlkStats {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) others: AtomicU64,
    pub(crate) failed: AtomicU64,
    log: LogLimit,
}

impl BlkStats {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts an error, and logs it at a limited rate.
    pub(crate) fn failed(&self, device: &str, disk: &str, error: &DiskError) {
        Self::add(&self.failed, 1);
        if matches!(error, DiskError::ChangesFormat { .. }) {
            // The disk says it, once.
            return;
        }
        if let Some(suppressed) = self.log.allow() {
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
