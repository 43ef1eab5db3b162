//! What of a machine is on the host, as state units: the lines of its serial ports, and its VMGS store.

use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use serde_json::Value;
use serde_json::json;
use serial_16550::SerialConnections;
use state_unit::StateUnit;
use std::sync::Arc;
use vmgs_broker::VmgsClient;

/// What the lines of the serial ports hold. It is kept across a reset: the guest sent it, or is still to read it.
pub struct SerialUnit(pub Arc<SerialConnections>);

impl StateUnit for SerialUnit {
    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(self.0.save())
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        self.0.restore(state)
    }

    fn inspect(&self) -> Value {
        self.0.inspect()
    }
}

/// The VMGS store. Its content stays in its file; what is saved is which content that was, because other units rely on
/// it: a machine is not restored beside a store that was changed since.
pub struct VmgsUnit(pub VmgsClient);

#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct SavedVmgs {
    /// The sequence number of the active header.
    #[n(1)]
    sequence: u32,
}

impl StateUnit for VmgsUnit {
    fn save(&mut self) -> Result<SavedState, SaveError> {
        let info = pal_async::block_on(self.0.info());
        let sequence = info
            .map_err(|error| SaveError::Failed(error.into()))?
            .sequence;
        Ok(SavedState::encode(&SavedVmgs { sequence }))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let SavedVmgs { sequence } = state.decode()?;
        let info = pal_async::block_on(self.0.info());
        let found = info
            .map_err(|error| RestoreError::Failed(error.into()))?
            .sequence;
        if found != sequence {
            return Err(RestoreError::Invalid(format!(
                "the VMGS store was changed since the VM was saved (its sequence number was {sequence}, and is {found})"
            )));
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        match pal_async::block_on(self.0.info()) {
            Ok(info) => json!({
                "sequence": info.sequence,
                "device_size": info.device_size,
                "free_size": info.free_size,
                "largest_gap": info.largest_gap,
                "encrypted": info.encrypted,
            }),
            Err(error) => json!({"error": error.to_string()}),
        }
    }
}
