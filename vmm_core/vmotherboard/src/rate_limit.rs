use parking_lot::Mutex;
use std::time::Duration;
use std::time::Instant;

/// Lets a guest cause so many log lines per second and no more.
#[derive(Default)]
pub(crate) struct RateLimit(Mutex<Window>);

#[derive(Default)]
struct Window {
    start: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

const WINDOW: Duration = Duration::from_secs(1);
const PER_WINDOW: u32 = 5;

impl RateLimit {
    /// Whether to log now; if so, how many lines were suppressed since the last one.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock();
        if window
            .start
            .is_none_or(|start| now.saturating_duration_since(start) >= WINDOW)
        {
            window.start = Some(now);
            window.passed = 0;
        }
        if window.passed == PER_WINDOW {
            window.suppressed += 1;
            return None;
        }
        window.passed += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppresses_and_counts() {
        let limit = RateLimit::default();
        let start = Instant::now();
        for _ in 0..PER_WINDOW {
            assert_eq!(limit.pass_at(start), Some(0));
        }
        assert_eq!(limit.pass_at(start), None);
        assert_eq!(limit.pass_at(start + WINDOW / 2), None);
        assert_eq!(limit.pass_at(start + WINDOW), Some(2));
        assert_eq!(limit.pass_at(start + WINDOW), Some(0));
    }
}
