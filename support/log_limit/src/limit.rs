use parking_lot::Mutex;
use std::time::Duration;
use std::time::Instant;

const WINDOW: Duration = Duration::from_secs(1);
const LINES_PER_WINDOW: u32 = 5;

/// Allows 5 log lines per second. Keep one for each source of lines: a field of the device, or a `static`.
///
/// ```
/// # use log_limit::LogLimit;
/// static LIMIT: LogLimit = LogLimit::new();
/// if let Some(suppressed) = LIMIT.allow() {
///     println!("the guest wrote to a read-only register ({suppressed} lines suppressed)");
/// }
/// ```
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    /// `None` until the first line.
    start: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// A limit that has allowed no line yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Window {
            start: None,
            lines: 0,
            suppressed: 0,
        }))
    }

    /// Returns `None` if the line must not be logged, else the number of lines suppressed since the last
    /// one that was allowed.
    pub fn allow(&self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock();
        if window
            .start
            .is_none_or(|start| now.saturating_duration_since(start) >= WINDOW)
        {
            window.start = Some(now);
            window.lines = 0;
        }
        if window.lines == LINES_PER_WINDOW {
            window.suppressed = window.suppressed.saturating_add(1);
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppresses_and_counts_lines_past_the_limit() {
        let limit = LogLimit::new();
        let start = Instant::now();
        for _ in 0..LINES_PER_WINDOW {
            assert_eq!(limit.allow_at(start), Some(0));
        }
        assert_eq!(limit.allow_at(start), None);
        assert_eq!(limit.allow_at(start + WINDOW / 2), None);
        assert_eq!(limit.allow_at(start + WINDOW), Some(2));
        assert_eq!(limit.allow_at(start + WINDOW), Some(0));
    }

    #[test]
    fn a_flood_causes_a_bounded_number_of_lines_per_second() {
        let limit = LogLimit::new();
        let start = Instant::now();
        let (mut allowed, mut suppressed) = (0, 0);
        for microsecond in 0..10_000_000 / 50 {
            if let Some(count) = limit.allow_at(start + Duration::from_micros(microsecond * 50)) {
                allowed += 1;
                suppressed += count;
            }
        }
        assert_eq!(allowed, 10 * u64::from(LINES_PER_WINDOW));
        // The lines suppressed in the last window are not reported yet.
        assert_eq!(suppressed, 9 * (20_000 - u64::from(LINES_PER_WINDOW)));
    }
}
