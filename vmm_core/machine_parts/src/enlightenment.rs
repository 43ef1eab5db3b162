use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use serde_json::Value;
use serde_json::json;
use state_unit::ResetError;
use state_unit::StateUnit;
use std::sync::Arc;
use virt::Enlightenment;

/// An enlightenment's state. The unit has the enlightenment's name.
pub struct EnlightenmentUnit(pub Arc<dyn Enlightenment>);

impl StateUnit for EnlightenmentUnit {
    fn reset(&mut self) -> Result<(), ResetError> {
        self.0.reset();
        Ok(())
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        self.0.save()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        self.0.restore(state)
    }

    fn inspect(&self) -> Value {
        json!({"name": self.0.name()})
    }
}
