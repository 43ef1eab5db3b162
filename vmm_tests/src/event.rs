//! What openvmm writes to `--json-events`.

use serde::Deserialize;
use std::time::Duration;

/// One line of the events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// The event's name.
    #[serde(rename = "event")]
    pub name: String,
    /// `CLOCK_MONOTONIC` when it happened, in nanoseconds.
    pub monotonic_ns: u64,
    /// The time since openvmm started, in nanoseconds.
    pub since_start_ns: u64,
    /// Why the VM halted.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Event {
    /// The time since openvmm started.
    pub fn since_start(&self) -> Duration {
        Duration::from_nanos(self.since_start_ns)
    }
}
