//! Timers that can be set again.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Instant;

/// A timer that expires once each time it is set.
#[derive(Debug)]
pub struct Timer(smol::Timer);

impl Timer {
    pub(crate) fn new() -> Self {
        Self(smol::Timer::never())
    }

    /// Sets the timer to expire at `deadline`, at once if that has passed. It replaces an earlier deadline.
    pub fn set(&mut self, deadline: Instant) {
        self.0.set_at(deadline);
    }

    /// Makes the timer not expire.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the timer is set and its expiry has not been awaited yet.
    pub fn is_set(&self) -> bool {
        self.0.will_fire()
    }

    /// Waits until the timer expires. Dropping the future loses nothing.
    pub async fn expired(&mut self) {
        poll_fn(|cx| self.poll_expired(cx)).await;
    }

    /// Ready when the timer expires, and then not again until it is set.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use crate::DefaultPool;
    use futures::FutureExt;
    use std::time::Duration;
    use std::time::Instant;

    #[test]
    fn a_timer_expires_once_per_setting() {
        DefaultPool::run_with(async |driver| {
            let mut timer = driver.timer();
            assert!(!timer.is_set());
            assert!(timer.expired().now_or_never().is_none());
            for _ in 0..3 {
                let deadline = Instant::now() + Duration::from_millis(1);
                timer.set(deadline);
                assert!(timer.is_set());
                timer.expired().await;
                assert!(Instant::now() >= deadline);
                assert!(!timer.is_set());
                assert!(timer.expired().now_or_never().is_none());
            }
        });
    }

    #[test]
    fn the_last_setting_counts() {
        DefaultPool::run_with(async |driver| {
            let mut timer = driver.timer();
            timer.set(Instant::now());
            timer.clear();
            assert!(!timer.is_set());
            assert!(timer.expired().now_or_never().is_none());

            let far = Instant::now() + Duration::from_secs(1 << 20);
            timer.set(far);
            assert!(timer.expired().now_or_never().is_none());
            // Earlier than what the reactor waits for.
            timer.set(Instant::now());
            timer.expired().await;
        });
    }
}
