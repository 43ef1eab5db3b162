use super::*;
use crate::ResetError;
use mesh::payload::DecodeError;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::sync::Arc;

type Log = Arc<Mutex<Vec<String>>>;

/// Logs the calls of its methods.
#[derive(Clone)]
struct Recorder {
    name: String,
    value: u32,
    running: bool,
    flaws: Flaws,
    log: Log,
}

#[derive(Clone, Default)]
struct Flaws {
    unsaveable: bool,
    save_fails: bool,
    restore_fails: bool,
    /// How often reset fails before it works.
    reset_failures: u32,
}

impl Recorder {
    fn record(&self, what: &str) {
        self.log.lock().push(format!("{what} {}", self.name));
    }
}

impl StateUnit for Recorder {
    fn start(&mut self) {
        assert!(!self.running);
        self.running = true;
        self.record("start");
    }

    fn stop(&mut self) {
        assert!(self.running);
        self.running = false;
        self.record("stop");
    }

    fn reset(&mut self) -> Result<(), ResetError> {
        assert!(!self.running);
        self.record("reset");
        if let Some(left) = self.flaws.reset_failures.checked_sub(1) {
            self.flaws.reset_failures = left;
            return Err(ResetError("stuck".into()));
        }
        self.value = 0;
        Ok(())
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        assert!(!self.running);
        self.record("save");
        if self.flaws.unsaveable {
            return Err(SaveError::NotSupported { reason: "host" });
        }
        if self.flaws.save_fails {
            return Err(SaveError::Failed("I/O error".into()));
        }
        Ok(SavedState::encode(&self.value))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        assert!(!self.running);
        self.record("restore");
        if self.flaws.restore_fails {
            return Err(RestoreError::Invalid("value".into()));
        }
        self.value = state.decode()?;
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "value": self.value })
    }
}

/// Units a, b, c that start in the order b, c, a.
fn units(flaws: [Flaws; 3]) -> (StateUnits, Log) {
    let log = Log::default();
    let mut builder = StateUnits::builder();
    for ((name, value), flaws) in [("a", 1), ("b", 2), ("c", 3)].into_iter().zip(flaws) {
        let unit = builder.add(
            name,
            Recorder {
                name: name.to_owned(),
                value,
                running: false,
                flaws,
                log: log.clone(),
            },
        );
        if name == "a" {
            unit.depends_on("b").depends_on("c");
        }
    }
    (builder.build().unwrap(), log)
}

fn intact_units() -> (StateUnits, Log) {
    units(Default::default())
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock())
}

fn saved(units: &[(&str, u32)]) -> SavedUnits {
    SavedUnits::new(
        units
            .iter()
            .map(|(name, value)| SavedUnit {
                name: (*name).to_owned(),
                state: SavedState::encode(value),
            })
            .collect(),
    )
}

fn values(units: &StateUnits) -> [u64; 3] {
    let inspected = units.inspect();
    ["a", "b", "c"].map(|name| inspected[name]["value"].as_u64().unwrap())
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn operations_follow_the_dependency_order() {
    let (mut units, log) = intact_units();
    assert_eq!(units.state(), UnitsState::Stopped);
    assert_eq!(units.start_order().collect::<Vec<_>>(), ["b", "c", "a"]);

    units.start().unwrap();
    assert_eq!(taken(&log), ["start b", "start c", "start a"]);
    assert_eq!(units.state(), UnitsState::Running);
    units.stop();
    assert_eq!(taken(&log), ["stop a", "stop c", "stop b"]);
    assert_eq!(units.state(), UnitsState::Stopped);

    let saved = units.save().unwrap();
    assert_eq!(taken(&log), ["save a", "save b", "save c"]);
    assert_eq!(
        saved
            .units()
            .iter()
            .map(|unit| &unit.name)
            .collect::<Vec<_>>(),
        ["a", "b", "c"]
    );

    units.reset().unwrap();
    assert_eq!(taken(&log), ["reset b", "reset c", "reset a"]);
    assert_eq!(values(&units), [0, 0, 0]);

    let saved = SavedUnits::decode(&saved.encode()).unwrap();
    units.restore(&saved).unwrap();
    assert_eq!(taken(&log), ["restore b", "restore c", "restore a"]);
    assert_eq!(values(&units), [1, 2, 3]);
    assert_eq!(units.state(), UnitsState::Stopped);
}

#[test]
fn starting_and_stopping_twice_does_nothing() {
    let (mut units, log) = intact_units();
    units.stop();
    assert_eq!(taken(&log), [""; 0]);
    units.start().unwrap();
    taken(&log);
    units.start().unwrap();
    assert_eq!(taken(&log), [""; 0]);
}

#[test]
fn running_units_are_neither_saved_nor_restored_nor_reset() {
    let (mut units, log) = intact_units();
    units.start().unwrap();
    taken(&log);
    let wrong = |operation| WrongState {
        operation,
        state: UnitsState::Running,
    };
    let Err(SaveUnitsError::WrongState(error)) = units.save() else {
        panic!("saved");
    };
    assert_eq!(error, wrong(UnitsOperation::Save));
    assert_eq!(error.to_string(), "cannot save the units: they are running");
    let Err(RestoreUnitsError::WrongState(error)) = units.restore(&saved(&[])) else {
        panic!("restored");
    };
    assert_eq!(error, wrong(UnitsOperation::Restore));
    let Err(ResetUnitsError::WrongState(error)) = units.reset() else {
        panic!("reset");
    };
    assert_eq!(error, wrong(UnitsOperation::Reset));
    assert_eq!(taken(&log), [""; 0]);
    assert_eq!(units.state(), UnitsState::Running);
}

#[test]
fn all_units_that_fail_to_save_are_reported() {
    let (mut units, log) = units([
        Flaws {
            unsaveable: true,
            ..Flaws::default()
        },
        Flaws::default(),
        Flaws {
            save_fails: true,
            ..Flaws::default()
        },
    ]);
    assert_eq!(
        units.save().unwrap_err().to_string(),
        "cannot save unit `a`: saving is not supported: host; \
         cannot save unit `c`: reading the state failed: I/O error"
    );
    assert_eq!(taken(&log).len(), 3);
    // Nothing is lost.
    assert_eq!(units.state(), UnitsState::Stopped);
    units.start().unwrap();
}

#[test]
fn names_that_do_not_match_are_refused_before_any_unit_is_restored() {
    type Case<'a> = (&'a [(&'a str, u32)], [&'a [&'a str]; 3], &'a str);
    let cases: &[Case<'_>] = &[
        (
            &[("a", 7), ("b", 8), ("c", 9), ("x", 1)],
            [&["x"], &[], &[]],
            "unknown: x; saved twice: none; missing: none",
        ),
        (
            &[("a", 7), ("b", 8), ("c", 9), ("b", 8)],
            [&[], &["b"], &[]],
            "unknown: none; saved twice: b; missing: none",
        ),
        (
            &[("b", 7)],
            [&[], &[], &["a", "c"]],
            "unknown: none; saved twice: none; missing: a, c",
        ),
        (
            &[("y", 1), ("a", 7), ("x", 1), ("a", 7), ("a", 7)],
            [&["y", "x"], &["a"], &["b", "c"]],
            "unknown: y, x; saved twice: a; missing: b, c",
        ),
    ];
    for (set, names, text) in cases {
        let (mut units, log) = intact_units();
        let error = units.restore(&saved(set)).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        let RestoreUnitsError::Mismatch {
            unknown,
            duplicate,
            missing,
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!([unknown, duplicate, missing], names.map(strings));
        assert_eq!(taken(&log), [""; 0]);
        assert_eq!(values(&units), [1, 2, 3]);
        assert_eq!(units.state(), UnitsState::Stopped);
    }
}

#[test]
fn a_restore_that_fails_midway_lists_the_restored_units() {
    let (mut units, log) = units([
        Flaws::default(),
        Flaws::default(),
        Flaws {
            restore_fails: true,
            ..Flaws::default()
        },
    ]);
    let all = saved(&[("a", 7), ("b", 8), ("c", 9)]);
    let error = units.restore(&all).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot restore unit `c` (already restored: b)"
    );
    let RestoreUnitsError::Unit {
        unit,
        restored,
        source,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((unit.as_str(), restored), ("c", strings(&["b"])));
    assert!(matches!(source, RestoreError::Invalid(_)));
    assert_eq!(taken(&log), ["restore b", "restore c"]);

    // Such a VM does not run.
    let inconsistent = |operation| WrongState {
        operation,
        state: UnitsState::Inconsistent,
    };
    assert_eq!(units.start(), Err(inconsistent(UnitsOperation::Start)));
    assert!(matches!(units.save(), Err(SaveUnitsError::WrongState(_))));
    assert!(matches!(
        units.restore(&all),
        Err(RestoreUnitsError::WrongState(_))
    ));
    units.stop();
    assert_eq!(taken(&log), [""; 0]);
    units.reset().unwrap();
    units.start().unwrap();
}

#[test]
fn a_decoding_error_names_the_unit_and_the_field() {
    let (mut units, _log) = intact_units();
    let mut set = saved(&[("a", 7), ("b", 8)]).units().to_vec();
    set.push(SavedUnit {
        name: "c".to_owned(),
        state: SavedState::default(),
    });
    let error = units.restore(&SavedUnits::new(set)).unwrap_err();
    assert!(matches!(
        error,
        RestoreUnitsError::Unit {
            source: RestoreError::Decode(DecodeError::Truncated),
            ..
        }
    ));
}

#[test]
fn a_reset_that_fails_midway_can_be_tried_again() {
    let (mut units, log) = units([
        Flaws::default(),
        Flaws::default(),
        Flaws {
            reset_failures: 1,
            ..Flaws::default()
        },
    ]);
    let error = units.reset().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot reset unit `c` (already reset: b)"
    );
    assert!(
        matches!(error, ResetUnitsError::Unit { unit, reset, .. } if unit == "c" && reset == ["b"])
    );
    assert_eq!(taken(&log), ["reset b", "reset c"]);
    assert_eq!(units.state(), UnitsState::Inconsistent);
    assert!(units.start().is_err());
    units.reset().unwrap();
    assert_eq!(units.state(), UnitsState::Stopped);
    units.start().unwrap();
}

#[test]
fn states_too_long_to_be_read_back_are_not_saved() {
    let unit = |name: &str, len| SavedUnit {
        name: name.to_owned(),
        // Zeroed pages, which are never accessed.
        state: SavedState::from_bytes(vec![0; len]),
    };
    assert!(check_length(&[unit("a", MAX_ENCODED_LEN / 2), unit("b", 100)]).is_ok());
    let error = check_length(&[unit("a", 100), unit("b", MAX_ENCODED_LEN)]).unwrap_err();
    assert!(matches!(error, SaveUnitsError::TooLong { largest, .. } if largest == "b"));
}

proptest! {
    /// In a random graph without cycles, every operation runs in the order of dependencies.
    #[test]
    fn operations_respect_any_graph(
        edges in proptest::collection::vec((0usize..10, 0usize..10), 0..30),
        names in Just((0..10).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let log = Log::default();
        let mut builder = StateUnits::builder();
        let mut dependencies = Vec::new();
        for number in 0..10 {
            // Shuffled, so that the order of names is unrelated to the graph.
            let name = |number: usize| names[number].to_string();
            let mut unit = builder.add(name(number), Recorder {
                name: name(number),
                value: number as u32,
                running: false,
                flaws: Flaws::default(),
                log: log.clone(),
            });
            for (a, b) in &edges {
                // From higher to lower numbers only, so there is no cycle.
                let (high, low) = (*a.max(b), *a.min(b));
                if high == number && high != low {
                    unit = unit.depends_on(name(low));
                    dependencies.push((name(high), name(low)));
                }
            }
        }
        let mut units = builder.build().unwrap();
        let before = units.inspect();
        units.start().unwrap();
        let started = taken(&log);
        units.stop();
        let mut stopped = taken(&log);
        let saved = units.save().unwrap();
        taken(&log);
        units.reset().unwrap();
        let reset = taken(&log);
        units.restore(&saved).unwrap();
        let restored = taken(&log);
        prop_assert_eq!(units.inspect(), before);

        stopped.reverse();
        for (what, log) in [
            ("start", started),
            ("stop", stopped),
            ("reset", reset),
            ("restore", restored),
        ] {
            prop_assert_eq!(log.len(), 10);
            let position = |name: &str| {
                let entry = format!("{what} {name}");
                log.iter().position(|logged| *logged == entry).unwrap()
            };
            for (dependent, on) in &dependencies {
                prop_assert!(position(on) < position(dependent), "{what} {dependent} {on}");
            }
        }
    }
}
