use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;

/// A part of a VM that has state, or that must be quiet while others save theirs.
///
/// A unit is built stopped. While it is stopped its state changes only through these methods, so that
/// what is saved is what the guest would find.
pub trait StateUnit: Send {
    /// Starts. The units it depends on run already. Called only while stopped.
    fn start(&mut self);

    /// Stops, and returns when nothing of the unit moves any more. The units it depends on still run.
    /// Called only while running.
    fn stop(&mut self);

    /// Returns to the state at power-on. Host-side connections stay. Called only while stopped.
    ///
    /// After an error the unit may be in any state; it is reset again or dropped.
    fn reset(&mut self) -> Result<(), ResetError>;

    /// Whether [`StateUnit::save`] can work at all, as far as is known without doing it.
    ///
    /// Called at any time, also while running, so that a save that cannot work is refused before the
    /// guest is disturbed.
    fn check_saveable(&self) -> Result<(), SaveError> {
        Ok(())
    }

    /// The unit's state, which does not change by this. Called only while stopped.
    fn save(&mut self) -> Result<SavedState, SaveError>;

    /// Takes a saved state. The units it depends on were restored already. Called only while stopped.
    ///
    /// After an error the unit may be in any state; it is reset or dropped.
    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError>;

    /// What a person debugging the VM wants to see. Called at any time.
    fn inspect(&self) -> serde_json::Value;
}

/// A unit could not be reset.
#[derive(Debug, thiserror::Error)]
#[error("resetting failed")]
pub struct ResetError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl<T: StateUnit + ?Sized> StateUnit for Box<T> {
    fn start(&mut self) {
        (**self).start();
    }

    fn stop(&mut self) {
        (**self).stop();
    }

    fn reset(&mut self) -> Result<(), ResetError> {
        (**self).reset()
    }

    fn check_saveable(&self) -> Result<(), SaveError> {
        (**self).check_saveable()
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        (**self).save()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        (**self).restore(state)
    }

    fn inspect(&self) -> serde_json::Value {
        (**self).inspect()
    }
}
