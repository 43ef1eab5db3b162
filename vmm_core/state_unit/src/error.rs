use crate::ResetError;
use crate::UnitsState;
use crate::saved::MAX_ENCODED_LEN;
use error_chain::Chain;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use std::error::Error;
use std::fmt::Display;
use std::fmt::Formatter;

/// What was to be done with all units.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Start them.
    Start,
    /// Reset them.
    Reset,
    /// Save them.
    Save,
    /// Restore them.
    Restore,
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Reset => "reset",
            Self::Save => "save",
            Self::Restore => "restore",
        })
    }
}

/// The units are not in a state for the operation. Nothing was done.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} the units: they are {state}")]
pub struct WrongState {
    /// The operation.
    pub operation: Operation,
    /// The state.
    pub state: UnitsState,
}

/// A unit cannot be saved.
#[derive(Debug, thiserror::Error)]
#[error("unit {unit} cannot be saved")]
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
            // A list has no one source, so each chain is part of the text.
            write!(f, "{}", Chain(error))?;
        }
        Ok(())
    }
}

impl Error for UnitErrors {}

/// Why the units were not saved. None of them changed.
#[derive(Debug, thiserror::Error)]
pub enum SaveUnitsError {
    /// The units are not stopped.
    #[error(transparent)]
    WrongState(#[from] WrongState),
    /// Some units cannot be saved.
    #[error(transparent)]
    Units(#[from] UnitErrors),
    /// The states are longer than is ever read back.
    #[error(
        "the units' states are {len} bytes long, most of them unit {largest}'s; \
         the limit is {MAX_ENCODED_LEN}"
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
    #[error("unit {unit} cannot be reset (reset before it: {})", list(.reset))]
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
    /// The saved units are not those of this VM. Nothing was done.
    #[error(
        "the saved units are not those of this VM (unknown here: {}; saved twice: {}; not saved: {})",
        list(.unknown), list(.duplicate), list(.missing)
    )]
    Mismatch {
        /// Saved, and not there.
        unknown: Vec<String>,
        /// Saved more than once.
        duplicate: Vec<String>,
        /// There, and not saved.
        missing: Vec<String>,
    },
    /// A unit failed. The units before it have the saved state and those after it do not: destroy the
    /// VM, or reset it.
    #[error("unit {unit} cannot be restored (restored before it: {})", list(.restored))]
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
