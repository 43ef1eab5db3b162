use crate::ResetError;
use crate::UnitsState;
use crate::saved::MAX_ENCODED_LEN;
use error_chain::Chain;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use std::error::Error;
use std::fmt::Display;
use std::fmt::Formatter;

/// An operation on all units.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum UnitsOperation {
    /// Start them.
    Start,
    /// Reset them.
    Reset,
    /// Save them.
    Save,
    /// Restore them.
    Restore,
}

impl Display for UnitsOperation {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Reset => "reset",
            Self::Save => "save",
            Self::Restore => "restore",
        })
    }
}

/// The units are in the wrong state for the operation. Nothing was done.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} the units: they are {state}")]
pub struct WrongState {
    /// The operation.
    pub operation: UnitsOperation,
    /// The state.
    pub state: UnitsState,
}

/// A unit cannot be saved.
#[derive(Debug, thiserror::Error)]
#[error("cannot save unit `{unit}`")]
pub struct UnitSaveError {
    /// The unit's name.
    pub unit: String,
    /// Why.
    #[source]
    pub source: SaveError,
}

/// Every unit that cannot be saved, in the order of their names.
#[derive(Debug)]
pub struct UnitErrors(pub Vec<UnitSaveError>);

impl Display for UnitErrors {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index != 0 {
                f.write_str("; ")?;
            }
            // A list has no single source, so the text contains the chain of each error.
            write!(f, "{}", Chain(error))?;
        }
        Ok(())
    }
}

impl Error for UnitErrors {}

/// Why the units were not saved. They are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum SaveUnitsError {
    /// The units are not stopped.
    #[error(transparent)]
    WrongState(#[from] WrongState),
    /// Some units cannot be saved.
    #[error(transparent)]
    Units(#[from] UnitErrors),
    /// The states are too long to be read back.
    #[error(
        "the saved states are {len} bytes long and the limit is {MAX_ENCODED_LEN}; \
         the largest is that of unit `{largest}`"
    )]
    TooLong {
        /// Their encoded length, in bytes.
        len: usize,
        /// The unit with the longest state.
        largest: String,
    },
}

/// Why the units were not reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetUnitsError {
    /// The units are running. Nothing was done.
    #[error(transparent)]
    WrongState(#[from] WrongState),
    /// A unit failed. The units after it were not reset: reset all again, or destroy the VM.
    #[error("cannot reset unit `{unit}` (already reset: {})", list(.reset))]
    Unit {
        /// The unit's name.
        unit: String,
        /// The units that were reset.
        reset: Vec<String>,
        /// Why.
        #[source]
        source: ResetError,
    },
}

/// Why the units were not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreUnitsError {
    /// The units are not stopped. Nothing was done.
    #[error(transparent)]
    WrongState(#[from] WrongState),
    /// The saved units do not match those of this VM. Nothing was done.
    #[error(
        "the saved units do not match those of this VM (unknown: {}; saved twice: {}; missing: {})",
        list(.unknown), list(.duplicate), list(.missing)
    )]
    Mismatch {
        /// Saved units that this VM does not have.
        unknown: Vec<String>,
        /// Units that were saved more than once.
        duplicate: Vec<String>,
        /// Units of this VM that were not saved.
        missing: Vec<String>,
    },
    /// A unit failed. The units before it have been restored and those after it have not: destroy the
    /// VM, or reset it.
    #[error("cannot restore unit `{unit}` (already restored: {})", list(.restored))]
    Unit {
        /// The unit's name.
        unit: String,
        /// The units that were restored.
        restored: Vec<String>,
        /// Why.
        #[source]
        source: RestoreError,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
