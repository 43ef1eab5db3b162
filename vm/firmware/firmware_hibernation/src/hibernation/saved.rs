//! Saving and restoring a VM's hibernation with the VM.

use super::Hibernation;
use crate::config::Mode;
use crate::machine::Image;
use crate::machine::Machine;
use crate::machine::State;
use crate::record::decode_start;
use crate::record::encode_start;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use minicbor::Decode;
use minicbor::Encode;

/// What is saved. The store, the note beside it and the configuration are not part of it: whoever restores
/// has them.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Saved {
    #[n(1)]
    phase: Phase,
    /// Header and section table of the record that has the running firmware, as they are in the store;
    /// absent if the firmware is not stored.
    #[cbor(n(2), with = "minicbor::bytes")]
    record: Option<Vec<u8>>,
}

/// The state, in which `record` says whether the firmware is stored.
#[derive(Clone, Copy, Encode, Decode)]
#[cbor(index_only)]
enum Phase {
    #[n(0)]
    Off,
    #[n(1)]
    Untracked,
    #[n(2)]
    Running,
    /// The token is in the store, and the operating system has not shown itself.
    #[n(3)]
    Waking,
    /// The token is in the store, and the operating system has shown itself, by announcing sleep or by a
    /// takeover signal.
    #[n(4)]
    TakenOver,
    #[n(5)]
    Refused,
}

impl Hibernation {
    /// The state, to be restored into a VM with the same store and configuration. Fails between
    /// [`start`](Hibernation::start) and the end of the [`capture`](Hibernation::capture) or
    /// [`restore`](Hibernation::restore_firmware) that it asked for. An override for a start that has not
    /// happened is not saved.
    pub fn save(&self) -> Result<SavedState, SaveError> {
        let phase = match self.machine.state() {
            State::Off => Phase::Off,
            State::Untracked => Phase::Untracked,
            State::Running { .. } => Phase::Running,
            State::Waking { taken_over, .. } if taken_over => Phase::TakenOver,
            State::Waking { .. } => Phase::Waking,
            State::Refused => Phase::Refused,
            State::Discarding | State::Capturing { .. } | State::Restoring => {
                return Err(SaveError::NotSupported {
                    reason: "the firmware is being stored or restored",
                });
            }
        };
        let record = self.record.as_ref().map(encode_start).transpose();
        Ok(SavedState::encode(&Saved {
            phase,
            record: record.map_err(|error| SaveError::Failed(error.into()))?,
        }))
    }

    /// Goes on from a saved state, without a start. After an error nothing has changed. An override is
    /// dropped: it was for a start.
    pub fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let saved: Saved = state.decode()?;
        let invalid = |reason: &str| Err(RestoreError::Invalid(reason.into()));
        let record = match &saved.record {
            None => None,
            Some(bytes) => {
                Some(decode_start(bytes).map_err(|error| RestoreError::Failed(error.into()))?)
            }
        };
        if record
            .as_ref()
            .is_some_and(|record| record.architecture != self.architecture)
        {
            return invalid("the stored firmware is for another architecture than this machine");
        }
        let image = match record {
            Some(_) => Image::Stored,
            None => Image::NotStored,
        };
        let state = match saved.phase {
            Phase::Off => State::Off,
            Phase::Untracked => State::Untracked,
            Phase::Refused => State::Refused,
            Phase::Running | Phase::Waking | Phase::TakenOver
                if self.storage.is_none() || self.config.mode() == Mode::Off =>
            {
                return invalid(
                    "the guest's hibernation is tracked in a VMGS store; give the VM its store and turn \
                     hibernation on",
                );
            }
            Phase::Running => State::Running { image },
            Phase::Waking | Phase::TakenOver => State::Waking {
                image,
                taken_over: matches!(saved.phase, Phase::TakenOver),
            },
        };
        self.machine = Machine::in_state(self.config.consume, self.config.takeover, state);
        self.record = record;
        self.look = None;
        self.config.requested = None;
        self.read_note();
        Ok(())
    }
}
