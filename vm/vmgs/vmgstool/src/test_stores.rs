//! Keys and stores to test with.

use crate::cli;
use crate::create;
use crate::open::Place;
use crate::output::Existing;
use anyhow::Context;
use anyhow::bail;
use vmgs::Key;

pub(crate) fn run(place: Place, command: &cli::Test) -> anyhow::Result<()> {
    match command {
        cli::Test::MakeKey {
            key_path,
            repeated,
            force_create,
        } => {
            let key = match repeated {
                Some(c) => Key::new([u8::try_from(*c).context("the character has no byte")?; 32]),
                None => Key::generate()?,
            };
            let existing = if *force_create {
                Existing::Replace
            } else {
                Existing::AskOrRefuse
            };
            create::write_key(key_path, &key, existing)
        }
        cli::Test::TwoKeys {
            store,
            first_key_path,
            second_key_path,
            force_create,
        } => {
            for path in [first_key_path, second_key_path] {
                if path.exists() {
                    bail!("{} exists already", path.display());
                }
            }
            let existing = if *force_create {
                Existing::Replace
            } else {
                Existing::AskOrRefuse
            };
            // Asked before there are keys, for a store that then is not made.
            let existing = create::check_place(&store.file_path, existing)?;
            let keys = [Key::generate()?, Key::generate()?];
            create::write_key(first_key_path, &keys[0], Existing::AskOrRefuse)?;
            create::write_key(second_key_path, &keys[1], Existing::AskOrRefuse)?;
            create::create_store(place, &store.file_path, 4 << 20, existing, |store| {
                store.encrypt(&keys[0])?;
                Ok(store.add_key(&keys[1])?)
            })
        }
    }
}
