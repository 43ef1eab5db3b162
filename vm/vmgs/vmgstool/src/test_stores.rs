//! Keys and stores for tests.

use crate::cli;
use crate::create;
use crate::open::Opener;
use crate::output::Existing;
use anyhow::Context;
use anyhow::bail;
use vmgs::Key;

pub(crate) fn run(opener: Opener, command: &cli::Test) -> anyhow::Result<()> {
    match command {
        cli::Test::MakeKey {
            key_path,
            repeated,
            force_create,
        } => {
            let key = match repeated {
                Some(c) => {
                    Key::new([u8::try_from(*c).context("the character is not a single byte")?; 32])
                }
                None => Key::generate()?,
            };
            let existing = Existing::AskOrRefuse.unless(*force_create);
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
            let existing = Existing::AskOrRefuse.unless(*force_create);
            // Ask before the keys are created, in case the store is not to be replaced.
            let existing = create::check_place(&store.file_path, existing)?;
            let keys = [Key::generate()?, Key::generate()?];
            create::write_key(first_key_path, &keys[0], Existing::AskOrRefuse)?;
            create::write_key(second_key_path, &keys[1], Existing::AskOrRefuse)?;
            create::create_store(opener, &store.file_path, 4 << 20, existing, |store| {
                store.encrypt(&keys[0])?;
                Ok(store.add_key(&keys[1])?)
            })
        }
    }
}
