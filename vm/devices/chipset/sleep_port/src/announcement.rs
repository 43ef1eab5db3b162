use std::fmt;

/// Set in the byte that `_PTS` writes.
pub const PREPARE: u8 = 0x10;

/// Set in the byte that `_WAK` writes.
pub const WAKE: u8 = 0x20;

/// An ACPI sleep state (ACPI 6.5, 16.1).
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SleepState {
    /// Sleep with low wake latency.
    S1 = 1,
    /// Sleep with loss of the processors' state.
    S2 = 2,
    /// Suspend to memory.
    S3 = 3,
    /// Hibernation: suspend to disk.
    S4 = 4,
    /// Soft off.
    S5 = 5,
}

/// A report of a guest's operating system about its sleep state.
///
/// It does not mean that the guest enters or leaves the state. A system that creates a hibernation image announces S4,
/// then that it woke from S4 (to write the image, without having slept), and then S4 again.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum SleepAnnouncement {
    /// The guest ran `_PTS`: it prepares to enter the state.
    PreparingToSleep(SleepState),
    /// The guest ran `_WAK`: it woke from the state.
    Woke(SleepState),
}

impl SleepAnnouncement {
    /// Encodes the byte that the methods write: the state in the low four bits, and [`PREPARE`] or [`WAKE`].
    pub fn to_byte(self) -> u8 {
        match self {
            Self::PreparingToSleep(state) => PREPARE | state as u8,
            Self::Woke(state) => WAKE | state as u8,
        }
    }

    /// Decodes a byte. Returns `None` for an invalid one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        let state = match byte & 0xf {
            1 => SleepState::S1,
            2 => SleepState::S2,
            3 => SleepState::S3,
            4 => SleepState::S4,
            5 => SleepState::S5,
            _ => return None,
        };
        match byte & 0xf0 {
            PREPARE => Some(Self::PreparingToSleep(state)),
            WAKE => Some(Self::Woke(state)),
            _ => None,
        }
    }
}

impl fmt::Display for SleepAnnouncement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreparingToSleep(state) => write!(f, "preparing for {state:?}"),
            Self::Woke(state) => write!(f, "woke from {state:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_invalid_ones_are_refused() {
        let known: Vec<u8> = (0..=u8::MAX)
            .filter(|byte| {
                let announcement = SleepAnnouncement::from_byte(*byte);
                assert!(announcement.is_none_or(|a| a.to_byte() == *byte));
                announcement.is_some()
            })
            .collect();
        assert_eq!(
            known,
            [0x11, 0x12, 0x13, 0x14, 0x15, 0x21, 0x22, 0x23, 0x24, 0x25]
        );
        assert_eq!(
            SleepAnnouncement::from_byte(0x24),
            Some(SleepAnnouncement::Woke(SleepState::S4))
        );
    }
}
