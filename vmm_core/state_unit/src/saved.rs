use mesh::payload;
use mesh::payload::DecodeError;
use mesh::saved_state::SavedState;
use minicbor::Decode;
use minicbor::Encode;

/// The maximum number of units of a VM.
pub const MAX_UNITS: usize = 4096;

/// The maximum length of a unit's name, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// The maximum length of encoded [`SavedUnits`], in bytes. They do not contain guest memory.
pub const MAX_ENCODED_LEN: usize = 256 << 20;

/// The saved states of a VM's units, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct SavedUnits {
    #[n(1)]
    units: Vec<SavedUnit>,
}

/// The saved state of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SavedUnit {
    /// The unit's name.
    #[n(1)]
    pub name: String,
    /// Its state.
    #[n(2)]
    pub state: SavedState,
}

/// Why [`SavedUnits::decode`] failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeUnitsError {
    /// There are more than [`MAX_ENCODED_LEN`] bytes.
    #[error("the saved units are {len} bytes long; the limit is {MAX_ENCODED_LEN}")]
    TooLong {
        /// Number of bytes.
        len: usize,
    },
    /// There are more than [`MAX_UNITS`] units.
    #[error("there are {count} saved units; the limit is {MAX_UNITS}")]
    TooManyUnits {
        /// Number of units.
        count: usize,
    },
    /// A unit's name is empty, or longer than [`MAX_NAME_LEN`].
    #[error("the name of saved unit {index} is {len} bytes long; it must be 1 to {MAX_NAME_LEN}")]
    NameLength {
        /// The unit's index in the list.
        index: usize,
        /// The name's length in bytes.
        len: usize,
    },
    /// The encoding is invalid.
    #[error("cannot decode the saved units")]
    Decode(#[from] DecodeError),
}

impl SavedUnits {
    pub(crate) fn new(units: Vec<SavedUnit>) -> Self {
        Self { units }
    }

    /// The units and their states. Decoded names may not be unique; [`StateUnits::restore`](crate::StateUnits::restore)
    /// checks this.
    pub fn units(&self) -> &[SavedUnit] {
        &self.units
    }

    /// The state of the first unit named `name`.
    pub fn get(&self, name: &str) -> Option<&SavedState> {
        self.units
            .iter()
            .find(|unit| unit.name == name)
            .map(|unit| &unit.state)
    }

    /// Encodes the states.
    pub fn encode(&self) -> Vec<u8> {
        payload::encode(self)
    }

    /// Decodes the result of [`SavedUnits::encode`]. The states themselves are not decoded.
    ///
    /// The caller need not read more than [`MAX_ENCODED_LEN`] bytes from storage.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeUnitsError> {
        if bytes.len() > MAX_ENCODED_LEN {
            return Err(DecodeUnitsError::TooLong { len: bytes.len() });
        }
        let saved: Self = payload::decode(bytes)?;
        let count = saved.units.len();
        if count > MAX_UNITS {
            return Err(DecodeUnitsError::TooManyUnits { count });
        }
        for (index, unit) in saved.units.iter().enumerate() {
            let len = unit.name.len();
            if !(1..=MAX_NAME_LEN).contains(&len) {
                return Err(DecodeUnitsError::NameLength { index, len });
            }
        }
        Ok(saved)
    }
}

#[cfg(test)]
#[path = "saved_test.rs"]
mod tests;
