//! Random moments.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Numbers that are another sequence each time (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The clock is the seed.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(now.map_or(0, |now| now.as_nanos() as u64))
    }

    /// A number below `sides`, which is not 0.
    pub fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// A time within `usual`, or a little longer.
    pub fn time(&mut self, usual: Duration) -> Duration {
        let most = (usual + usual / 8).as_micros() as u64;
        Duration::from_micros(self.throw(most.max(1)))
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
