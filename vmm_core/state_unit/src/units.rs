use crate::ResetUnitsError;
use crate::RestoreUnitsError;
use crate::SaveUnitsError;
use crate::SavedUnit;
use crate::SavedUnits;
use crate::StateUnit;
use crate::UnitErrors;
use crate::UnitSaveError;
use crate::UnitsOperation;
use crate::UnitsState;
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

impl StateUnits {
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

    /// Starts the units, dependencies first. No effect if they are running.
    pub fn start(&mut self) -> Result<(), WrongState> {
        if self.state == UnitsState::Running {
            return Ok(());
        }
        self.require_stopped(UnitsOperation::Start)?;
        for index in &self.order {
            let Unit { name, unit } = &mut self.units[*index];
            tracing::trace!(unit = %name, "starting");
            unit.start();
        }
        self.state = UnitsState::Running;
        Ok(())
    }

    /// Stops the units, dependencies last. No effect if they are not running.
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
    /// If a unit fails, the state becomes [`UnitsState::Inconsistent`].
    pub fn reset(&mut self) -> Result<(), ResetUnitsError> {
        if self.state == UnitsState::Running {
            return Err(self.wrong_state(UnitsOperation::Reset).into());
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

    /// Saves the units, in the order of their names. They must be stopped.
    ///
    /// The error lists all units that cannot be saved.
    pub fn save(&mut self) -> Result<SavedUnits, SaveUnitsError> {
        self.require_stopped(UnitsOperation::Save)?;
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
    /// The names in `saved` are checked before any unit is changed. If a unit fails, the state becomes
    /// [`UnitsState::Inconsistent`].
    pub fn restore(&mut self, saved: &SavedUnits) -> Result<(), RestoreUnitsError> {
        self.require_stopped(UnitsOperation::Restore)?;
        let states = self.match_names(saved)?;
        self.state = UnitsState::Inconsistent;
        let mut restored = Vec::new();
        for index in &self.order {
            let Unit { name, unit } = &mut self.units[*index];
            tracing::trace!(unit = %name, "restoring");
            if let Err(source) = unit.restore(states[name.as_str()]) {
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

    /// The state of each unit for debugging, by name.
    pub fn inspect(&self) -> serde_json::Value {
        self.units
            .iter()
            .map(|Unit { name, unit }| (name.clone(), unit.inspect()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// Returns the saved states by name, after checking that their names match the units.
    fn match_names<'a>(
        &self,
        saved: &'a SavedUnits,
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
        let names = self.units.iter().map(|unit| &unit.name);
        let missing: Vec<_> = names
            .filter(|name| !states.contains_key(name.as_str()))
            .cloned()
            .collect();
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

    fn require_stopped(&self, operation: UnitsOperation) -> Result<(), WrongState> {
        if self.state == UnitsState::Stopped {
            Ok(())
        } else {
            Err(self.wrong_state(operation))
        }
    }

    fn wrong_state(&self, operation: UnitsOperation) -> WrongState {
        WrongState {
            operation,
            state: self.state,
        }
    }
}

/// Fails if [`SavedUnits::decode`] would refuse to read the states back.
fn check_length(saved: &[SavedUnit]) -> Result<(), SaveUnitsError> {
    // An upper bound for the encoding around a state and its name.
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

#[cfg(test)]
#[path = "units_test.rs"]
mod tests;
