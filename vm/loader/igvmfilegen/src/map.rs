//! What is where in guest memory, in words.

use crate::build::PackedConfig;
use std::fmt::Write;

/// The map of all guest configs.
pub(crate) fn map(configs: &[PackedConfig]) -> String {
    let mut text = String::new();
    for config in configs {
        // Writing to a string does not fail.
        let _ = writeln!(text, "platform: {}", config.platform);
        let _ = writeln!(text, "memory:");
        for (what, range) in config.image.placed() {
            let size = range.len();
            let _ = writeln!(
                text,
                "  {:#014x} - {:#014x} ({size} bytes) {what}",
                range.start, range.end
            );
        }
        let _ = writeln!(text, "required memory:");
        for (what, range) in config.image.required() {
            let size = range.len();
            let _ = writeln!(
                text,
                "  {:#014x} - {:#014x} ({size} bytes) {what}",
                range.start, range.end
            );
        }
    }
    text
}
