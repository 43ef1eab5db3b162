//! The saved state of hibernation.

use crate::record::Record;
use crate::record::decode_start;
use crate::record::encode_start;
use crate::state_machine::HibernationState;
use crate::state_machine::ImageStatus;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use minicbor::Decode;
use minicbor::Encode;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Saved {
    #[n(1)]
    phase: Phase,
    /// Header and section table of the record of the running firmware, as in the store; absent if the firmware is
    /// not stored.
    #[cbor(n(2), with = "minicbor::bytes")]
    record: Option<Vec<u8>>,
}

/// The state without its [`ImageStatus`], which follows from whether there is a record.
#[derive(Clone, Copy, Encode, Decode)]
#[cbor(index_only)]
enum Phase {
    #[n(0)]
    Off,
    #[n(1)]
    Untracked,
    #[n(2)]
    Running,
    /// Waking; no operating system was seen.
    #[n(3)]
    Waking,
    /// Waking; an operating system was seen.
    #[n(4)]
    TakenOver,
    #[n(5)]
    Refused,
}

/// Encodes a state and the record of the running firmware. Fails during a start.
pub(crate) fn save(
    state: HibernationState,
    record: Option<&Record>,
) -> Result<SavedState, SaveError> {
    let phase = match state {
        HibernationState::Off => Phase::Off,
        HibernationState::Untracked => Phase::Untracked,
        HibernationState::Running { .. } => Phase::Running,
        HibernationState::Waking { taken_over, .. } if taken_over => Phase::TakenOver,
        HibernationState::Waking { .. } => Phase::Waking,
        HibernationState::Refused => Phase::Refused,
        HibernationState::Discarding
        | HibernationState::Capturing { .. }
        | HibernationState::Restoring => {
            return Err(SaveError::NotSupported {
                reason: "the firmware is being captured or restored",
            });
        }
    };
    let record = record.map(encode_start).transpose();
    Ok(SavedState::encode(&Saved {
        phase,
        record: record.map_err(|error| SaveError::Failed(error.into()))?,
    }))
}

/// Decodes what [`save`] encoded.
pub(crate) fn restore(
    state: &SavedState,
) -> Result<(HibernationState, Option<Record>), RestoreError> {
    let saved: Saved = state.decode()?;
    let record = saved.record.as_deref().map(decode_start).transpose();
    let record = record.map_err(|error| RestoreError::Failed(error.into()))?;
    let image = match record {
        Some(_) => ImageStatus::Stored,
        None => ImageStatus::NotStored,
    };
    let waking = |taken_over| HibernationState::Waking { image, taken_over };
    let state = match saved.phase {
        Phase::Off => HibernationState::Off,
        Phase::Untracked => HibernationState::Untracked,
        Phase::Running => HibernationState::Running { image },
        Phase::Waking => waking(false),
        Phase::TakenOver => waking(true),
        Phase::Refused => HibernationState::Refused,
    };
    Ok((state, record))
}
