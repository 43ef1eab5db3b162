//! What openvmm writes to `--json-events`.

use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
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
    /// What else it says.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

impl Event {
    /// A text that it says.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.details.get(field)?.as_str()
    }

    /// The time since openvmm started.
    pub fn since_start(&self) -> Duration {
        Duration::from_nanos(self.since_start_ns)
    }
}
