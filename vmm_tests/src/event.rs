//! The events that openvmm writes to `--json-events`.

use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use std::time::Duration;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct JsonEvent {
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
    /// Its other fields.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

impl JsonEvent {
    /// The text in `field`.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.details.get(field)?.as_str()
    }

    /// The time since openvmm started.
    pub fn since_start(&self) -> Duration {
        Duration::from_nanos(self.since_start_ns)
    }
}
