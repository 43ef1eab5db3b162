//! Saved state: what a stateful part returns when it is saved, and gets back when it is restored.

use crate::payload;
use crate::payload::DecodeError;

/// The encoded state of one part.
#[derive(Debug, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct SavedState(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>);

impl SavedState {
    /// Encodes `state`.
    pub fn encode<T: minicbor::Encode<()>>(state: &T) -> Self {
        Self(payload::encode(state))
    }

    /// Decodes the state a part of type `T` saved.
    pub fn decode<'b, T: minicbor::Decode<'b, ()>>(&'b self) -> Result<T, RestoreError> {
        Ok(payload::decode(&self.0)?)
    }

    /// State from a file or another process. It is not checked until it is decoded.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The encoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why a part's state could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The part has state that cannot be saved.
    #[error("saving is not supported: {reason}")]
    NotSupported {
        /// Why.
        reason: &'static str,
    },
    /// Reading the state failed.
    #[error("reading the state failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a part's state could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bytes are not the state of such a part.
    #[error("the saved state does not decode")]
    Decode(#[from] DecodeError),
    /// A value in the saved state is impossible.
    #[error("the saved state is invalid: {0}")]
    Invalid(String),
    /// Writing the state failed.
    #[error("writing the state failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
    #[cbor(map)]
    struct Device {
        #[n(1)]
        register: u32,
    }

    #[test]
    fn a_state_nests_as_bytes() {
        let state = SavedState::encode(&Device { register: 5 });
        assert_eq!(state.as_bytes(), [0xa1, 0x01, 0x05]);
        assert_eq!(payload::encode(&state), [0x43, 0xa1, 0x01, 0x05]);
        let nested: SavedState = payload::decode(&[0x43, 0xa1, 0x01, 0x05]).unwrap();
        assert_eq!(nested, state);
        assert_eq!(nested.decode::<Device>().unwrap(), Device { register: 5 });
    }

    #[test]
    fn the_reason_of_a_failed_decode_is_kept() {
        let error = SavedState::from_bytes(vec![0xa0])
            .decode::<Device>()
            .unwrap_err();
        assert!(matches!(
            error,
            RestoreError::Decode(DecodeError::MissingField { field: 1 })
        ));
        assert!(matches!(
            SavedState::default().decode::<Device>(),
            Err(RestoreError::Decode(DecodeError::Truncated))
        ));
    }
}
