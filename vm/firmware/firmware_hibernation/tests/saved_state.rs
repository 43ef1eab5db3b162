//! Saving a VM's hibernation and going on from it in another VMM.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use firmware_hibernation::*;
use mesh::payload::DecodeError;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SavedState;
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;
use support::*;
use vmgs::MemoryDevice;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// On a host with this firmware; the machine is the usual one or another.
    Start(u8, bool),
    Prepare(Sleep),
    Wake,
    RuntimeHandoff,
    PowerOff,
    Reset,
    Hibernate,
    Crash,
}

/// A VM with its store, and the note beside it in a directory of its own.
struct Life {
    device: MemoryDevice,
    dir: tempfile::TempDir,
    heard: Heard,
    vm: HibernationEngine,
}

impl Life {
    fn new(device: MemoryDevice, setup: Setup, note: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        if let Some(note) = note
            && note.exists()
        {
            std::fs::copy(note, &path).unwrap();
        }
        let heard = Heard::default();
        let vm = vm(open(device.clone(), None), setup, &heard)
            .with_sequence_note(SequenceNoteFile(path));
        Self {
            device,
            dir,
            heard,
            vm,
        }
    }

    /// The same store and note under another VMM, which restores `state`.
    fn successor(&self, setup: Setup, state: &SavedState) -> Self {
        let device = MemoryDevice::with_bytes(512, self.device.to_vec());
        let note = self.dir.path().join("seen");
        let mut life = Self::new(device, setup, Some(&note));
        life.vm.restore(state).unwrap();
        life
    }

    /// Takes the step, and returns everything that can be seen of it.
    fn step(&mut self, step: Step) -> Value {
        let vm = &mut self.vm;
        let result = match step {
            Step::Start(host, usual) => {
                let view = machine(if usual { 2048 } else { 1024 }, &["disk0"]);
                match start_on(vm, host, &view) {
                    Ok(ran) => format!("{ran:?}"),
                    Err(refusal) => refusal.to_string(),
                }
            }
            Step::Hibernate => format!("{:?}", vm.hibernate()),
            Step::Prepare(sleep) => format!("{:?}", vm.prepare(sleep)),
            Step::Wake => format!("{:?}", vm.wake()),
            Step::RuntimeHandoff => format!("{:?}", vm.runtime_handoff()),
            Step::PowerOff => format!("{:?}", vm.power_off()),
            Step::Reset => format!("{:?}", vm.reset()),
            Step::Crash => format!("{:?}", vm.crash()),
        };
        let mut seen = serde_json::json!({
            "result": result,
            "events": self.heard.take(),
            "inspect": self.vm.inspect(),
            "token": token(&self.device),
            "note": std::fs::read(self.dir.path().join("seen")).ok(),
        });
        // Different in each life: random identifiers, times, and what was last heard before the save.
        seen["inspect"]["last_event"].take();
        forget(&mut seen, &["image_id", "capture_time", "milliseconds"]);
        seen
    }
}

fn forget(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields.values_mut().for_each(|value| forget(value, names));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| forget(value, names)),
        _ => {}
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..4, prop::bool::weighted(0.9)).prop_map(|(host, usual)| Step::Start(host, usual)),
        2 => Just(Step::Prepare(Sleep::Hibernate)),
        1 => Just(Step::Prepare(Sleep::Suspend)),
        1 => Just(Step::Prepare(Sleep::PowerOff)),
        2 => Just(Step::Wake),
        1 => Just(Step::RuntimeHandoff),
        1 => Just(Step::PowerOff),
        1 => Just(Step::Reset),
        4 => Just(Step::Hibernate),
        1 => Just(Step::Crash),
    ]
}

fn any_setup() -> impl Strategy<Value = Setup> {
    (
        prop::bool::weighted(0.9),
        prop::sample::select(&ConsumePolicy::ALL[..]),
        any::<bool>(),
    )
        .prop_map(|(on, consume, acpi)| Setup {
            mode: if on { Mode::On } else { Mode::Off },
            consume,
            takeover: if acpi {
                TakeoverSignal::AcpiWake
            } else {
                TakeoverSignal::RuntimeHandoff
            },
            key: None,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_restored_life_goes_on_as_the_saved_one(
        setup in any_setup(),
        before in proptest::collection::vec(any_step(), 0..12),
        after in proptest::collection::vec(any_step(), 1..8),
    ) {
        let mut life = Life::new(formatted(64), setup, None);
        for step in before {
            life.step(step);
        }
        let state = life.vm.save().unwrap();
        let mut successor = life.successor(setup, &state);
        prop_assert_eq!(successor.vm.state(), life.vm.state());
        prop_assert_eq!(successor.vm.save().unwrap(), state);
        for step in after {
            prop_assert_eq!(successor.step(step), life.step(step), "{:?}", step);
        }
    }
}

#[test]
fn the_encoding_is_stable() {
    let device = formatted(64);
    let mut vm = on(&device, &Heard::default());
    assert_eq!(vm.save().unwrap().as_bytes(), [0xa1, 1, 0]);
    start(&mut vm, 1).unwrap();
    let state = vm.save().unwrap();
    // Map of two: the phase, and the record's header and table, of which the length takes two bytes.
    let head = &state.as_bytes()[..6];
    assert_eq!(head[..4], [0xa2, 1, 2, 2]);
    assert_eq!(head[4], 0x59);
    assert_eq!(state.as_bytes()[7..15], *b"HIBFWIMG");
    let len = open(device, None).file_info(RECORD).unwrap().valid_bytes;
    let parts: u64 = firmware(1).parts().iter().map(|(part, _)| part.len).sum();
    assert!((state.as_bytes().len() as u64) < len - parts + 16);
}

#[test]
fn unknown_fields_are_skipped_and_missing_ones_named() {
    let mut vm = on(&formatted(64), &Heard::default());
    let restore = |vm: &mut HibernationEngine, bytes: &[u8]| {
        vm.restore(&SavedState::from_bytes(bytes.to_vec()))
    };
    restore(&mut vm, &[0xa2, 1, 5, 9, 0x61, b'x']).unwrap();
    assert_eq!(vm.state(), HibernationState::Refused);
    assert!(matches!(
        restore(&mut vm, &[0xa0]),
        Err(RestoreError::Decode(DecodeError::MissingField { field: 1 }))
    ));
    // A phase that does not exist, and a record that is none.
    restore(&mut vm, &[0xa1, 1, 6]).unwrap_err();
    restore(&mut vm, &[0xa2, 1, 2, 2, 0x42, 1, 2]).unwrap_err();
    assert_eq!(vm.state(), HibernationState::Refused, "nothing has changed");
}

#[test]
fn a_state_that_cannot_go_on_is_refused() {
    // While the firmware is about to be stored.
    let device = formatted(64);
    let mut vm = on(&device, &Heard::default());
    vm.start(&usual_machine()).unwrap();
    vm.save().unwrap_err();
    vm.reset();
    start(&mut vm, 1).unwrap();
    let running = vm.save().unwrap();

    // Into a VM that would forget a hibernation, or run other processors.
    let config = |mode| Config::new(mode, Isolation::None, TakeoverSignal::AcpiWake).unwrap();
    let new = |mode, architecture, store: bool| {
        let store = store.then(|| Box::new(open(device.clone(), None)) as Box<dyn Storage>);
        HibernationEngine::new(config(mode), architecture, store, Heard::default().sink())
    };
    for mut other in [
        new(Mode::On, Architecture::X86_64, false),
        new(Mode::Off, Architecture::X86_64, true),
        new(Mode::On, Architecture::Aarch64, true),
    ] {
        other.restore(&running).unwrap_err();
        assert_eq!(other.state(), HibernationState::Off);
    }
    let mut same = new(Mode::On, Architecture::X86_64, true);
    same.restore(&running).unwrap();
    assert_eq!(same.state(), vm.state());
}
