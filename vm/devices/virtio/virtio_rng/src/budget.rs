//! The limit on how much entropy a guest gets.

use std::time::Duration;
use std::time::Instant;

/// How much entropy a guest gets: a limit on the work that it can cause on the host.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct EntropyRate {
    /// Bytes per second in the long run, at least 1.
    pub bytes_per_second: u32,
    /// Bytes that a guest gets at once after it has requested none for a while, at least 1.
    pub burst: u32,
}

impl Default for EntropyRate {
    /// 1 MiB per second, a hundred times what a kernel requests.
    fn default() -> Self {
        Self {
            bytes_per_second: 1 << 20,
            burst: 1 << 20,
        }
    }
}

/// What a guest may get at the moment: a token bucket.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    rate: EntropyRate,
    /// When the bucket will be full if nothing is taken.
    full_at: Instant,
}

impl Budget {
    pub(crate) fn new(rate: EntropyRate, now: Instant) -> Self {
        Self {
            rate: EntropyRate {
                bytes_per_second: rate.bytes_per_second.max(1),
                burst: rate.burst.max(1),
            },
            full_at: now,
        }
    }

    fn time_for(&self, bytes: u32) -> Duration {
        Duration::from_secs(bytes.into()) / self.rate.bytes_per_second
    }

    /// Takes up to `wanted` bytes, which is not 0. The error is how long to wait for the first.
    pub(crate) fn take(&mut self, wanted: u32, now: Instant) -> Result<u32, Duration> {
        let full_in = self.full_at.saturating_duration_since(now);
        let missing = full_in.as_nanos() * u128::from(self.rate.bytes_per_second);
        let missing = missing.div_ceil(1_000_000_000);
        let available = u128::from(self.rate.burst).saturating_sub(missing) as u32;
        if available == 0 {
            return Err(full_in.saturating_sub(self.time_for(self.rate.burst - 1)));
        }
        let taken = wanted.min(available);
        self.full_at = self.full_at.max(now) + self.time_for(taken);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: EntropyRate = EntropyRate {
        bytes_per_second: 100,
        burst: 50,
    };

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(RATE, start);
        assert_eq!(budget.take(20, start), Ok(20));
        assert_eq!(budget.take(100, start), Ok(30));
        let wait = budget.take(1, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(10));
        assert_eq!(budget.take(100, start + wait), Ok(1));
        assert_eq!(budget.take(100, start + Duration::from_millis(210)), Ok(20));
        // Never more than the burst, however long the guest requested none.
        let later = start + Duration::from_secs(1_000_000);
        assert_eq!(budget.take(1000, later), Ok(50));
    }

    #[test]
    fn bytes_are_available_after_the_wait() {
        for bytes_per_second in [0, 1, 3, 7, 1 << 20, u32::MAX] {
            for burst in [0, 1, 2, 1 << 20, u32::MAX] {
                let rate = EntropyRate {
                    bytes_per_second,
                    burst,
                };
                let mut now = Instant::now();
                let mut budget = Budget::new(rate, now);
                for _ in 0..20 {
                    match budget.take(burst.max(1), now) {
                        Ok(taken) => assert_ne!(taken, 0),
                        Err(wait) => {
                            // At most one nanosecond more, for rounding.
                            now += wait + Duration::from_nanos(1);
                            assert!(budget.take(1, now).is_ok(), "{rate:?}");
                        }
                    }
                }
            }
        }
    }
}
