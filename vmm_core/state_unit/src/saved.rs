use mesh::payload;
use mesh::payload::DecodeError;
use mesh::saved_state::SavedState;
use minicbor::Decode;
use minicbor::Encode;

/// The most units a VM has.
pub const MAX_UNITS: usize = 4096;

/// The longest name of a unit, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// The longest encoding of [`SavedUnits`], in bytes. Guest memory is not among them.
pub const MAX_ENCODED_LEN: usize = 256 << 20;

/// The states of a VM's units, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct SavedUnits {
    #[n(1)]
    units: Vec<SavedUnit>,
}

/// The state of a unit.
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

/// Why bytes are not the states of a VM's units.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeUnitsError {
    /// There are more bytes than any encoding has.
    #[error("the saved units are {len} bytes long; the limit is {MAX_ENCODED_LEN}")]
    TooLong {
        /// How many.
        len: usize,
    },
    /// There are more units than any VM has.
    #[error("{count} units are saved; the limit is {MAX_UNITS}")]
    TooManyUnits {
        /// How many.
        count: usize,
    },
    /// A unit's name is empty, or longer than [`MAX_NAME_LEN`].
    #[error("the name of saved unit number {index} is {len} bytes long, not 1 to {MAX_NAME_LEN}")]
    NameLength {
        /// The place of the unit in the list, from 0.
        index: usize,
        /// The length in bytes.
        len: usize,
    },
    /// The bytes do not decode.
    #[error("the saved units do not decode")]
    Decode(#[from] DecodeError),
}

impl SavedUnits {
    pub(crate) fn new(units: Vec<SavedUnit>) -> Self {
        Self { units }
    }

    /// The units and their states. Names are unique only if the VM that saved them was sound.
    pub fn units(&self) -> &[SavedUnit] {
        &self.units
    }

    /// The state of the first unit called `name`.
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

    /// Decodes what [`SavedUnits::encode`] made. The states themselves are not looked into.
    ///
    /// A reader need not read more than [`MAX_ENCODED_LEN`] bytes from wherever they are kept.
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
