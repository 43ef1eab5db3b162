use std::time::Duration;

/// A point in guest time: nanoseconds for which the VM has been running.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmInstant(u64);

impl VmInstant {
    /// Power-on of the VM.
    pub const ZERO: Self = Self(0);

    /// The latest representable point, more than 580 years after power-on.
    pub const MAX: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds of running after power-on.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds of running since power-on.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point `duration` later, or [`Self::MAX`] where that is out of range.
    pub fn saturating_add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// The duration since `earlier`, or zero if this point is before it.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
