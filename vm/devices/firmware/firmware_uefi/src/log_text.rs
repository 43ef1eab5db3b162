//! Text of the guest for the log.

use log_limit::LogLimit;
use std::time::Duration;
use std::time::Instant;

/// The longest text that is logged, in bytes.
pub(crate) const MAX_TEXT: usize = 4096;

/// How long the firmware's log is not read again because of the guest: each time may add many lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Limits how often a guest has the firmware's log read, by resets and by its watchdog.
#[derive(Debug, Default)]
pub(crate) struct ReadLimit(Option<Instant>);

impl ReadLimit {
    /// Whether the log may be read at `now`.
    pub(crate) fn allow_at(&mut self, now: Instant) -> bool {
        let is_early = self
            .0
            .is_some_and(|last| now.saturating_duration_since(last) < PAUSE);
        if !is_early {
            self.0 = Some(now);
        }
        !is_early
    }
}

/// `text` without control characters, for one line.
pub(crate) fn printable(text: &str) -> String {
    let text = text.trim_end();
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Logs text that the firmware sent on its own.
pub(crate) fn log_debug_text(limit: &LogLimit, text: &str) {
    let text = printable(text);
    if text.is_empty() {
        return;
    }
    if let Some(suppressed) = limit.allow() {
        tracing::debug!(text, suppressed, "text of the UEFI firmware");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read_at_most_once_in_ten_seconds() {
        let (mut limit, start) = (ReadLimit::default(), Instant::now());
        let times = [0, 1, 9, 10, 11, 19, 20];
        let allowed = times.map(|seconds| limit.allow_at(start + Duration::from_secs(seconds)));
        assert_eq!(allowed, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(printable("a\tb\x1b[1m\r\n"), "a\tb\u{fffd}[1m");
    }
}
