use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;

/// A part of a VM that has state, or that must not run while other parts are saved.
///
/// A unit is built stopped. While it is stopped, its state changes only through these methods. The defaults of `start`, `stop`
/// and `reset` are for a unit that does nothing by itself and has nothing to reset.
pub trait StateUnit: Send {
    /// Starts the unit. The units it depends on are running. Called only while stopped.
    fn start(&mut self) {}

    /// Stops the unit, and returns when all of its activity has ended. The units it depends on are still running.
    /// Called only while running.
    fn stop(&mut self) {}

    /// Returns to the state at power-on. Host-side connections stay. Called only while stopped.
    ///
    /// After an error the unit may be in any state; the caller resets it again or drops it.
    fn reset(&mut self) -> Result<(), ResetError> {
        Ok(())
    }

    /// Returns the unit's state, without changing it. Called only while stopped.
    fn save(&mut self) -> Result<SavedState, SaveError>;

    /// Restores a saved state. The units it depends on have been restored. Called only while stopped.
    ///
    /// After an error the unit may be in any state; the caller resets or drops it.
    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError>;

    /// The unit's state for debugging. Called at any time.
    fn inspect(&self) -> serde_json::Value;
}

/// A unit could not be reset.
#[derive(Debug, thiserror::Error)]
#[error("reset failed")]
pub struct ResetError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
