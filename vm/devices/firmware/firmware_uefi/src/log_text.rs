//! Text of the guest for the log.

use log_limit::LogLimit;

/// The longest text that is logged, in bytes.
pub(crate) const MAX_TEXT: usize = 4096;

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
