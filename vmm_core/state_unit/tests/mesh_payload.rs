//! Runs the driver of the fuzz target `mesh_payload` on a few seeds.

#[path = "../../../fuzz/drivers/mesh_payload.rs"]
mod driver;

use driver::Kind;
use driver::Message;
use driver::run;
use mesh::payload;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use state_unit::ResetError;
use state_unit::StateUnit;
use state_unit::StateUnits;

fn message() -> Message {
    Message {
        number: 1 << 40,
        optional: Some(-5),
        bytes: vec![1, 2, 3],
        array: [4; 4],
        list: vec![5, 600],
        map: [("key".to_owned(), true)].into(),
        kind: Kind::Fields {
            text: "text".to_owned(),
            optional: None,
        },
        next: Some(Box::default()),
        late: 7,
    }
}

struct Unit;

impl StateUnit for Unit {
    fn start(&mut self) {}

    fn stop(&mut self) {}

    fn reset(&mut self) -> Result<(), ResetError> {
        Ok(())
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&message()))
    }

    fn restore(&mut self, _state: &SavedState) -> Result<(), RestoreError> {
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

fn saved_units() -> Vec<u8> {
    let mut builder = StateUnits::builder();
    builder.add("a", Unit);
    builder.add("b", Unit);
    let mut units = builder.build().expect("two names");
    units.save().expect("nothing fails").encode()
}

#[test]
fn valid_seeds_decode() {
    assert_eq!(run(&payload::encode(&message())), (true, false));
    assert_eq!(run(&saved_units()), (false, true));
}

#[test]
fn corrupted_seeds_do_not_panic() {
    for seed in [payload::encode(&message()), saved_units()] {
        for len in 0..seed.len() {
            assert_eq!(run(&seed[..len]), (false, false));
        }
        for index in 0..seed.len() {
            for bit in 0..8u32 {
                let mut damaged = seed.clone();
                damaged[index] ^= 1u8 << bit;
                run(&damaged);
            }
            for byte in [0x00, 0x5b, 0x80, 0x9b, 0xa0, 0xbb, 0xf6, 0xff] {
                let mut damaged = seed.clone();
                damaged[index] = byte;
                run(&damaged);
            }
        }
    }
}

#[test]
fn hostile_seeds_do_not_panic() {
    for repeated in [[0xa1, 0x08], [0x81, 0x81], [0xc1, 0xc1], [0x9f, 0xbf]] {
        assert_eq!(run(&repeated.repeat(1 << 16)), (false, false));
    }
    assert_eq!(
        run(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (false, false)
    );
}
