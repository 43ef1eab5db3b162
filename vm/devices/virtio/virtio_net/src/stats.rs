use serde_json::json;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Counters of one direction of a device.
#[derive(Debug, Default)]
pub(crate) struct NetStats {
    frames: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

impl NetStats {
    pub(crate) fn frame(&self, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn drop_frame(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn inspect(&self) -> serde_json::Value {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "frames": load(&self.frames),
            "bytes": load(&self.bytes),
            "dropped": load(&self.dropped),
        })
    }
}
