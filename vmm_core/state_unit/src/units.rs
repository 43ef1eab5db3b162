use crate::Operation;
use crate::ResetUnitsError;
use crate::RestoreUnitsError;
use crate::SaveUnitsError;
use crate::SavedUnit;
use crate::SavedUnits;
use crate::StateUnit;
use crate::StateUnitsBuilder;
use crate::UnitErrors;
use crate::UnitSaveError;
use crate::WrongState;
use crate::saved::MAX_ENCODED_LEN;
use mesh::saved_state::SavedState;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// All units of a VM.
pub struct StateUnits {
    /// In the order of their names.
    units: Vec<Unit>,
    /// Indices into `units`, dependencies first.
    order: Vec<usize>,
    state: UnitsState,
}

pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) unit: Box<dyn StateUnit>,
}

/// What the units of a VM are doing.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum UnitsState {
    /// All are stopped.
    Stopped,
    /// All are running.
    Running,
    /// All are stopped, and their states do not belong together: a restore or a reset failed midway.
    /// Only a reset that works makes them usable again.
    Inconsistent,
}

impl std::fmt::Display for UnitsState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Inconsistent => "inconsistent since a restore or a reset failed",
        })
    }
}

/// What becomes of units that a restore has no state for.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum MissingUnits {
    /// The restore is refused.
    Refuse,
    /// They stay as they are: as built, if nothing ran yet.
    LeaveAsTheyAre,
}

impl StateUnits {
    /// Begins to collect units.
    pub fn builder() -> StateUnitsBuilder {
        StateUnitsBuilder::default()
    }

    pub(crate) fn new(units: Vec<Unit>, order: Vec<usize>) -> Self {
        Self {
            units,
            order,
            state: UnitsState::Stopped,
        }
    }

    /// What the units are doing.
    pub fn state(&self) -> UnitsState {
        self.state
    }

    /// The units' names, in the order in which they start.
    pub fn start_order(&self) -> impl Iterator<Item = &str> {
        self.order
            .iter()
            .map(|index| self.units[*index].name.as_str())
    }

    /// Starts the units, dependencies first. Nothing happens if they run already.
    pub fn start(&mut self) -> Result<(), WrongState> {
        if self.state == UnitsState::Running {
            return Ok(());
        }
        self.require_stopped(Operation::Start)?;
        for index in &self.order {
            let Unit { name, unit } = &mut self.units[*index];
            tracing::trace!(unit = %name, "starting");
            unit.start();
        }
        self.state = UnitsState::Running;
        Ok(())
    }

    /// Stops the units, dependencies last. Nothing happens if they do not run.
    pub fn stop(&mut self) {
        if self.state != UnitsState::Running {
            return;
        }
        for index in self.order.iter().rev() {
            let Unit { name, unit } = &mut self.units[*index];
            tracing::trace!(unit = %name, "stopping");
            unit.stop();
        }
        self.state = UnitsState::Stopped;
    }

    /// Resets the units, dependencies first. They must not be running.
    ///
    /// If one fails, they are [`UnitsState::Inconsistent`].
    pub fn reset(&mut self) -> Result<(), ResetUnitsError> {
        if self.state == UnitsState::Running {
            return Err(self.wrong_state(Operation::Reset).into());
        }
        self.state = UnitsState::Inconsistent;
        for (position, index) in self.order.iter().enumerate() {
            let Unit { name, unit } = &mut self.units[*index];
            tracing::trace!(unit = %name, "resetting");
            if let Err(source) = unit.reset() {
                return Err(ResetUnitsError::Unit {
                    unit: name.clone(),
                    reset: self.names_before(position),
                    source,
                });
            }
        }
        self.state = UnitsState::Stopped;
        Ok(())
    }

    /// Whether the units can be saved, as far as is known without stopping them. Finds every unit that
    /// cannot.
    pub fn check_saveable(&self) -> Result<(), UnitErrors> {
        let errors = self
            .units
            .iter()
            .filter_map(|Unit { name, unit }| {
                let source = unit.check_saveable().err()?;
                Some(UnitSaveError {
                    unit: name.clone(),
                    source,
                })
            })
            .collect::<Vec<_>>();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(UnitErrors(errors))
        }
    }

    /// Saves the units, in the order of their names. They must be stopped.
    ///
    /// If some cannot be saved, the error names all of them.
    pub fn save(&mut self) -> Result<SavedUnits, SaveUnitsError> {
        self.require_stopped(Operation::Save)?;
        self.check_saveable()?;
        let mut saved = Vec::with_capacity(self.units.len());
        let mut errors = Vec::new();
        for Unit { name, unit } in &mut self.units {
            tracing::trace!(unit = %name, "saving");
            match unit.save() {
                Ok(state) => saved.push(SavedUnit {
                    name: name.clone(),
                    state,
                }),
                Err(source) => errors.push(UnitSaveError {
                    unit: name.clone(),
                    source,
                }),
            }
        }
        if !errors.is_empty() {
            return Err(UnitErrors(errors).into());
        }
        check_length(&saved)?;
        Ok(SavedUnits::new(saved))
    }

    /// Restores the units, dependencies first. They must be stopped.
    ///
    /// The names in `saved` are checked before any unit is touched. If a unit fails, the units are
    /// [`UnitsState::Inconsistent`].
    pub fn restore(
        &mut self,
        saved: &SavedUnits,
        missing_units: MissingUnits,
    ) -> Result<(), RestoreUnitsError> {
        self.require_stopped(Operation::Restore)?;
        let states = self.match_names(saved, missing_units)?;
        self.state = UnitsState::Inconsistent;
        let mut restored = Vec::new();
        for index in &self.order {
            let Unit { name, unit } = &mut self.units[*index];
            let Some(state) = states.get(name.as_str()) else {
                tracing::debug!(unit = %name, "not saved; left as it is");
                continue;
            };
            tracing::trace!(unit = %name, "restoring");
            if let Err(source) = unit.restore(state) {
                return Err(RestoreUnitsError::Unit {
                    unit: name.clone(),
                    restored,
                    source,
                });
            }
            restored.push(name.clone());
        }
        self.state = UnitsState::Stopped;
        Ok(())
    }

    /// What a person debugging the VM wants to see: a value for each unit, by name.
    pub fn inspect(&self) -> serde_json::Value {
        self.units
            .iter()
            .map(|Unit { name, unit }| (name.clone(), unit.inspect()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// The saved states by name, each of which is that of a unit.
    fn match_names<'a>(
        &self,
        saved: &'a SavedUnits,
        missing_units: MissingUnits,
    ) -> Result<BTreeMap<&'a str, &'a SavedState>, RestoreUnitsError> {
        let mut states = BTreeMap::new();
        let mut unknown = Vec::new();
        let mut duplicate = BTreeSet::new();
        for SavedUnit { name, state } in saved.units() {
            if states.insert(name.as_str(), state).is_some() {
                duplicate.insert(name.clone());
            } else if !self.has(name) {
                unknown.push(name.clone());
            }
        }
        let missing = match missing_units {
            MissingUnits::LeaveAsTheyAre => Vec::new(),
            MissingUnits::Refuse => self
                .units
                .iter()
                .filter(|unit| !states.contains_key(unit.name.as_str()))
                .map(|unit| unit.name.clone())
                .collect(),
        };
        if unknown.is_empty() && duplicate.is_empty() && missing.is_empty() {
            Ok(states)
        } else {
            Err(RestoreUnitsError::Mismatch {
                unknown,
                duplicate: duplicate.into_iter().collect(),
                missing,
            })
        }
    }

    fn has(&self, name: &str) -> bool {
        self.units
            .binary_search_by(|unit| unit.name.as_str().cmp(name))
            .is_ok()
    }

    /// The names of the units that come before the one at `position` in the start order.
    fn names_before(&self, position: usize) -> Vec<String> {
        self.start_order()
            .take(position)
            .map(str::to_owned)
            .collect()
    }

    fn require_stopped(&self, operation: Operation) -> Result<(), WrongState> {
        if self.state == UnitsState::Stopped {
            Ok(())
        } else {
            Err(self.wrong_state(operation))
        }
    }

    fn wrong_state(&self, operation: Operation) -> WrongState {
        WrongState {
            operation,
            state: self.state,
        }
    }
}

/// Refuses to save what [`SavedUnits::decode`] would refuse to read back.
fn check_length(saved: &[SavedUnit]) -> Result<(), SaveUnitsError> {
    // The lengths and the heads around a state and its name, generously.
    const OVERHEAD: usize = 64;
    let len = saved
        .iter()
        .map(|unit| unit.state.as_bytes().len() + unit.name.len() + OVERHEAD)
        .sum::<usize>();
    match saved.iter().max_by_key(|unit| unit.state.as_bytes().len()) {
        Some(largest) if len > MAX_ENCODED_LEN => Err(SaveUnitsError::TooLong {
            len,
            largest: largest.name.clone(),
        }),
        _ => Ok(()),
    }
}

impl std::fmt::Debug for StateUnits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateUnits")
            .field("state", &self.state)
            .field("start_order", &self.start_order().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
#[path = "units_test.rs"]
mod tests;
