//! How a VM starts. Nothing of it is part of the machine, and nothing of it is kept for the next start.

use firmware_hibernation::Override;
pub use machine_parts::OnReset;
use state_unit::SavedUnits;

/// One start of a VM.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Where the guest begins.
    pub start: Start,
    /// Whether it runs at once.
    pub initial_state: InitialState,
    /// What a reset by the guest does.
    pub on_reset: OnReset,
}

/// Where the guest begins.
#[derive(Debug, Clone)]
pub enum Start {
    /// At power-on.
    Boot(BootOptions),
    /// Where the machine with this state stood. Guest RAM is a file that still has the content it had then.
    Restore(SavedUnits),
}

/// What holds for one boot.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub struct BootOptions {
    /// How to start although the firmware stored for a hibernated guest cannot be used, or is not wanted.
    pub hibernation_override: Option<Override>,
}

/// Whether a new VM runs at once.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub enum InitialState {
    /// It does.
    #[default]
    Running,
    /// It runs when it is resumed.
    Paused,
}

impl Default for Start {
    fn default() -> Self {
        Self::Boot(BootOptions::default())
    }
}
