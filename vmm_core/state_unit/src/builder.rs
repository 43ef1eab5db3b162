use crate::StateUnit;
use crate::StateUnits;
use crate::saved::MAX_NAME_LEN;
use crate::saved::MAX_UNITS;
use crate::units::Unit;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Collects units and what they depend on.
#[derive(Default)]
pub struct StateUnitsBuilder {
    units: Vec<(String, Box<dyn StateUnit>)>,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    dependent: String,
    on: String,
    /// Who said so.
    stated_by: Side,
}

enum Side {
    Dependent,
    Dependency,
}

/// A unit that was added, to say what it depends on.
pub struct UnitBuilder<'a> {
    builder: &'a mut StateUnitsBuilder,
    name: String,
}

/// Why units do not make a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A name is empty, or longer than [`MAX_NAME_LEN`].
    #[error("unit name {name:?} is not 1 to {MAX_NAME_LEN} bytes long")]
    NameLength {
        /// The name.
        name: String,
    },
    /// Two units have the same name.
    #[error("there are two units called {name}")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// There are more than [`MAX_UNITS`] units.
    #[error("there are {count} units; the limit is {MAX_UNITS}")]
    TooManyUnits {
        /// How many.
        count: usize,
    },
    /// A unit depends on, or is a dependency of, one that there is not.
    #[error("unit {unit} refers to unit {other}, which there is not")]
    UnknownDependency {
        /// The unit that refers to it.
        unit: String,
        /// What it refers to.
        other: String,
    },
    /// Units depend on each other.
    #[error("units depend on each other in a cycle: {}", .units.join(", "))]
    Cycle {
        /// Each depends on the next, and the last on the first.
        units: Vec<String>,
    },
}

impl StateUnitsBuilder {
    /// Adds a unit.
    ///
    /// Its state is saved by `name`, which therefore stays the same from version to version.
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

    /// The units as a whole, stopped.
    pub fn build(mut self) -> Result<StateUnits, BuildError> {
        let count = self.units.len();
        if count > MAX_UNITS {
            return Err(BuildError::TooManyUnits { count });
        }
        self.units.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, _) in &self.units {
            if !(1..=MAX_NAME_LEN).contains(&name.len()) {
                return Err(BuildError::NameLength { name: name.clone() });
            }
        }
        for pair in self.units.windows(2) {
            if pair[0].0 == pair[1].0 {
                return Err(BuildError::DuplicateName {
                    name: pair[0].0.clone(),
                });
            }
        }
        let order = start_order(&self.edges()?).map_err(|cycle| BuildError::Cycle {
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

    /// For each unit, in the order of names, the units it depends on.
    fn edges(&self) -> Result<Vec<BTreeSet<usize>>, BuildError> {
        let indices = self
            .units
            .iter()
            .enumerate()
            .map(|(index, (name, _))| (name.as_str(), index))
            .collect::<BTreeMap<_, _>>();
        let mut edges = vec![BTreeSet::new(); self.units.len()];
        for dependency in &self.dependencies {
            let Dependency { dependent, on, .. } = dependency;
            let (Some(dependent), Some(on)) =
                (indices.get(dependent.as_str()), indices.get(on.as_str()))
            else {
                let (unit, other) = match dependency.stated_by {
                    Side::Dependent => (dependent, on),
                    Side::Dependency => (on, dependent),
                };
                return Err(BuildError::UnknownDependency {
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
        self.builder.dependencies.push(Dependency {
            dependent: self.name.clone(),
            on: name.into(),
            stated_by: Side::Dependent,
        });
        self
    }

    /// The unit starts, is reset and is restored before `name`, and stops after it.
    pub fn dependency_of(self, name: impl Into<String>) -> Self {
        self.builder.dependencies.push(Dependency {
            dependent: name.into(),
            on: self.name.clone(),
            stated_by: Side::Dependency,
        });
        self
    }
}

impl std::fmt::Debug for StateUnitsBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.units.iter().map(|(name, _)| name))
            .finish()
    }
}

impl std::fmt::Debug for UnitBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UnitBuilder").field(&self.name).finish()
    }
}

/// An order in which each index comes after those it depends on, or a cycle.
///
/// Among the indices that may come next it is always the lowest, so that a VM starts in the same order
/// however it was put together.
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

/// The cycle that is met from `start`, which like all it waits for waits for something.
fn find_cycle(waiting_for: &[BTreeSet<usize>], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    let mut last = start;
    while let Some(next) = waiting_for[last].first().copied() {
        if let Some(begin) = path.iter().position(|index| *index == next) {
            return path.split_off(begin);
        }
        path.push(next);
        last = next;
    }
    path
}

#[cfg(test)]
#[path = "builder_test.rs"]
mod tests;
