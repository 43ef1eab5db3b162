use crate::StateUnit;
use crate::StateUnits;
use crate::saved::MAX_NAME_LEN;
use crate::saved::MAX_UNITS;
use crate::units::Unit;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Collects units and their dependencies.
#[derive(Default)]
pub struct StateUnitsBuilder {
    units: Vec<(String, Box<dyn StateUnit>)>,
    /// Pairs of a unit and one that it depends on.
    dependencies: Vec<(String, String)>,
}

/// A unit that was added, to declare its dependencies.
pub struct UnitBuilder<'a> {
    builder: &'a mut StateUnitsBuilder,
    name: String,
}

/// Why [`StateUnitsBuilder::build`] failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildUnitsError {
    /// A name is empty, or longer than [`MAX_NAME_LEN`].
    #[error("unit name {name:?} must be 1 to {MAX_NAME_LEN} bytes long")]
    NameLength {
        /// The name.
        name: String,
    },
    /// Two units have the same name.
    #[error("there are two units named `{name}`")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// There are more than [`MAX_UNITS`] units.
    #[error("there are {count} units; the limit is {MAX_UNITS}")]
    TooManyUnits {
        /// Number of units.
        count: usize,
    },
    /// A unit depends on one that was not added.
    #[error("unit `{unit}` depends on unknown unit `{other}`")]
    UnknownDependency {
        /// The unit with the dependency.
        unit: String,
        /// The name of the unknown unit.
        other: String,
    },
    /// Units depend on each other.
    #[error("units depend on each other in a cycle: {}", .units.join(", "))]
    Cycle {
        /// Each depends on the next, and the last on the first.
        units: Vec<String>,
    },
}

impl StateUnits {
    /// Returns a builder without units.
    pub fn builder() -> StateUnitsBuilder {
        StateUnitsBuilder::default()
    }
}

impl StateUnitsBuilder {
    /// Adds a unit.
    ///
    /// `name` is the key of its saved state, so it must not change between versions.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        unit: impl StateUnit + 'static,
    ) -> UnitBuilder<'_> {
        let name = name.into();
        self.units.push((name.clone(), Box::new(unit)));
        UnitBuilder {
            builder: self,
            name,
        }
    }

    /// Builds the set of units, all stopped.
    pub fn build(mut self) -> Result<StateUnits, BuildUnitsError> {
        let count = self.units.len();
        if count > MAX_UNITS {
            return Err(BuildUnitsError::TooManyUnits { count });
        }
        self.units.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, _) in &self.units {
            if !(1..=MAX_NAME_LEN).contains(&name.len()) {
                return Err(BuildUnitsError::NameLength { name: name.clone() });
            }
        }
        for pair in self.units.windows(2) {
            if pair[0].0 == pair[1].0 {
                return Err(BuildUnitsError::DuplicateName {
                    name: pair[0].0.clone(),
                });
            }
        }
        let order = start_order(&self.edges()?).map_err(|cycle| BuildUnitsError::Cycle {
            units: cycle
                .into_iter()
                .map(|index| self.units[index].0.clone())
                .collect(),
        })?;
        let units = self
            .units
            .into_iter()
            .map(|(name, unit)| Unit { name, unit })
            .collect();
        Ok(StateUnits::new(units, order))
    }

    /// For each unit, in the order of names, the indices of the units it depends on.
    fn edges(&self) -> Result<Vec<BTreeSet<usize>>, BuildUnitsError> {
        let indices = self
            .units
            .iter()
            .enumerate()
            .map(|(index, (name, _))| (name.as_str(), index))
            .collect::<BTreeMap<_, _>>();
        let mut edges = vec![BTreeSet::new(); self.units.len()];
        for (unit, other) in &self.dependencies {
            let indices = (indices.get(unit.as_str()), indices.get(other.as_str()));
            let (Some(dependent), Some(on)) = indices else {
                return Err(BuildUnitsError::UnknownDependency {
                    unit: unit.clone(),
                    other: other.clone(),
                });
            };
            edges[*dependent].insert(*on);
        }
        Ok(edges)
    }
}

impl UnitBuilder<'_> {
    /// The unit starts, is reset and is restored after `name`, and stops before it.
    pub fn depends_on(self, name: impl Into<String>) -> Self {
        let dependency = (self.name.clone(), name.into());
        self.builder.dependencies.push(dependency);
        self
    }
}

/// Returns an order in which each index comes after those it depends on, or a cycle.
///
/// Among the indices that may come next, the lowest is chosen, so that the start order does not depend on the order
/// in which units were added.
fn start_order(dependencies: &[BTreeSet<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut waiting_for = dependencies.to_vec();
    let mut dependents = vec![Vec::new(); dependencies.len()];
    for (index, on) in dependencies.iter().enumerate() {
        for on in on {
            dependents[*on].push(index);
        }
    }
    let mut ready = (0..dependencies.len())
        .filter(|index| dependencies[*index].is_empty())
        .collect::<BTreeSet<_>>();
    let mut order = Vec::with_capacity(dependencies.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for dependent in &dependents[index] {
            waiting_for[*dependent].remove(&index);
            if waiting_for[*dependent].is_empty() {
                ready.insert(*dependent);
            }
        }
    }
    match (0..dependencies.len()).find(|index| !waiting_for[*index].is_empty()) {
        None => Ok(order),
        Some(stuck) => Err(find_cycle(&waiting_for, stuck)),
    }
}

/// Finds a cycle by following dependencies from `start`. Every index that is reachable must have a dependency.
fn find_cycle(waiting_for: &[BTreeSet<usize>], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    let mut last = start;
    while let Some(next) = waiting_for[last].first().copied() {
        if let Some(first) = path.iter().position(|index| *index == next) {
            return path.split_off(first);
        }
        path.push(next);
        last = next;
    }
    path
}

#[cfg(test)]
#[path = "builder_test.rs"]
mod tests;
