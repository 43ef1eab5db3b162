use super::*;
use crate::ResetError;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use proptest::prelude::*;

struct Inert;

impl StateUnit for Inert {
    fn start(&mut self) {}

    fn stop(&mut self) {}

    fn reset(&mut self) -> Result<(), ResetError> {
        Ok(())
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::default())
    }

    fn restore(&mut self, _state: &SavedState) -> Result<(), RestoreError> {
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

fn build(names: &[&str], depends_on: &[(&str, &str)]) -> Result<Vec<String>, BuildUnitsError> {
    let mut builder = StateUnits::builder();
    for name in names {
        let mut unit = builder.add(*name, Inert);
        for (dependent, on) in depends_on {
            if dependent == name {
                unit = unit.depends_on(*on);
            }
        }
    }
    let units = builder.build()?;
    Ok(units.start_order().map(str::to_owned).collect())
}

#[test]
fn units_start_after_their_dependencies() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (&[], &[], &[]),
        (&["b", "a", "c"], &[], &["a", "b", "c"]),
        (&["a", "b"], &[("a", "b")], &["b", "a"]),
        (&["a", "b"], &[("a", "b"), ("a", "b")], &["b", "a"]),
        (
            &["a", "b", "c"],
            &[("a", "b"), ("b", "c")],
            &["c", "b", "a"],
        ),
        (
            &["a", "b", "c", "d"],
            &[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")],
            &["d", "b", "c", "a"],
        ),
        // Otherwise in the order of their names.
        (&["a", "b", "c", "d"], &[("b", "d")], &["a", "c", "d", "b"]),
    ];
    for (names, depends_on, order) in cases {
        assert_eq!(
            build(names, depends_on).unwrap(),
            *order,
            "{names:?} {depends_on:?}"
        );
    }
}

#[test]
fn errors_name_the_units() {
    let unknown = |unit: &str, other: &str| BuildUnitsError::UnknownDependency {
        unit: unit.into(),
        other: other.into(),
    };
    let cycle = |units: &[&str]| BuildUnitsError::Cycle {
        units: units.iter().map(|unit| (*unit).to_owned()).collect(),
    };
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], BuildUnitsError);
    let long = "n".repeat(MAX_NAME_LEN + 1);
    let cases: &[Case<'_>] = &[
        (
            &["a", "b", "a"],
            &[],
            BuildUnitsError::DuplicateName { name: "a".into() },
        ),
        (&[""], &[], BuildUnitsError::NameLength { name: "".into() }),
        (
            &[&long],
            &[],
            BuildUnitsError::NameLength { name: long.clone() },
        ),
        (&["a"], &[("a", "b")], unknown("a", "b")),
        (&["a"], &[("a", "a")], cycle(&["a"])),
        (&["a", "b"], &[("a", "b"), ("b", "a")], cycle(&["a", "b"])),
        // Units outside of the cycle are not reported.
        (
            &["a", "b", "c", "d", "e"],
            &[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("d", "e")],
            cycle(&["b", "c", "d"]),
        ),
    ];
    for (names, depends_on, error) in cases {
        assert_eq!(
            build(names, depends_on).as_ref(),
            Err(error),
            "{names:?} {depends_on:?}"
        );
    }

    assert_eq!(
        unknown("a", "b").to_string(),
        "unit `a` depends on unknown unit `b`"
    );
    assert_eq!(
        cycle(&["b", "c", "d"]).to_string(),
        "units depend on each other in a cycle: b, c, d"
    );
}

#[test]
fn the_number_of_units_is_limited() {
    let build = |count| {
        let mut builder = StateUnits::builder();
        for n in 0..count {
            builder.add(format!("unit{n}"), Inert);
        }
        builder.build().map(drop)
    };
    assert_eq!(build(MAX_UNITS), Ok(()));
    assert_eq!(
        build(MAX_UNITS + 1),
        Err(BuildUnitsError::TooManyUnits {
            count: MAX_UNITS + 1
        })
    );
}

proptest! {
    /// Any graph has either an order that respects all dependencies, or a cycle.
    #[test]
    fn finds_an_order_or_a_cycle(
        edges in proptest::collection::vec((0usize..12, 0usize..12), 0..24),
    ) {
        let mut dependencies = vec![BTreeSet::new(); 12];
        for (dependent, on) in edges {
            dependencies[dependent].insert(on);
        }
        match start_order(&dependencies) {
            Ok(order) => {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..12).collect::<Vec<_>>());
                for (position, index) in order.iter().enumerate() {
                    for on in &dependencies[*index] {
                        prop_assert!(order[..position].contains(on));
                    }
                }
            }
            Err(cycle) => {
                prop_assert!(!cycle.is_empty());
                for (index, next) in cycle.iter().zip(cycle.iter().cycle().skip(1)) {
                    prop_assert!(dependencies[*index].contains(next));
                }
            }
        }
    }

    #[test]
    fn the_order_does_not_depend_on_how_the_units_were_added(
        names in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        edges in proptest::collection::vec((0usize..8, 0usize..8), 0..12),
    ) {
        // Edges from higher to lower numbers only, so there is no cycle.
        let build = |names: &[usize]| {
            let mut builder = StateUnits::builder();
            for name in names {
                let mut unit = builder.add(name.to_string(), Inert);
                for (a, b) in &edges {
                    if a.max(b) == name && a != b {
                        unit = unit.depends_on(a.min(b).to_string());
                    }
                }
            }
            let units = builder.build().unwrap();
            units.start_order().map(str::to_owned).collect::<Vec<_>>()
        };
        prop_assert_eq!(build(&names), build(&(0..8).collect::<Vec<_>>()));
    }
}
