//! Which files a command reads and writes, so that none of its outputs is also an input.

use crate::cli;
use crate::cli::Command as C;
use crate::cli::Test;
use crate::cli::UefiNvram;
use anyhow::Context;
use file_identity::Access;
use file_identity::FileUse;
use file_identity::check_distinct;
use std::path::Path;

/// Fails if the command would write a file that it also uses otherwise. Nothing is opened.
pub(crate) fn check(command: &C) -> anyhow::Result<()> {
    refuse_shared(&of(command))
}

/// Fails if standard output is a file that the command reads, or the store. A new file with a command's result may be
/// standard output: `-d /dev/stdout`.
pub(crate) fn check_standard_output(command: &C) -> anyhow::Result<()> {
    let output = FileUse::write("standard output", "/proc/self/fd/1");
    for used in of(command) {
        if used.access == Access::Read || used.what == STORE {
            refuse_shared(&[used, output.clone()])?;
        }
    }
    Ok(())
}

/// Fails if a file that is written is used twice.
pub(crate) fn refuse_shared(uses: &[FileUse]) -> anyhow::Result<()> {
    check_distinct(uses).context("nothing was changed")
}

const STORE: &str = "the store";

/// The files of a command, collected with few words.
#[derive(Default)]
struct Uses(Vec<FileUse>);

impl Uses {
    fn read_store(store: &cli::Store) -> Self {
        Self::default().reads(STORE, store.file_path.as_path())
    }

    fn change_store(store: &cli::Store) -> Self {
        Self::default().writes(STORE, store.file_path.as_path())
    }

    fn read_with_key(target: &cli::StoreOptionalKey) -> Self {
        Self::read_store(&target.store).key(&target.key)
    }

    fn change_with_key(target: &cli::StoreOptionalKey) -> Self {
        Self::change_store(&target.store).key(&target.key)
    }

    fn key(self, key: &cli::OptionalKey) -> Self {
        self.reads("the key file", key.key_path.as_deref())
    }

    fn reads<'a>(mut self, what: &str, path: impl Into<Option<&'a Path>>) -> Self {
        self.0
            .extend(path.into().map(|path| FileUse::read(what, path)));
        self
    }

    fn writes<'a>(mut self, what: &str, path: impl Into<Option<&'a Path>>) -> Self {
        self.0
            .extend(path.into().map(|path| FileUse::write(what, path)));
        self
    }
}

/// All files that the command's options name.
pub(crate) fn of(command: &C) -> Vec<FileUse> {
    let uses = match command {
        C::Create(args) => {
            Uses::change_store(&args.store).reads("the key file", args.key_path.as_deref())
        }
        C::Write(args) => written(args),
        C::Inject(args) => written(&args.write),
        C::Dump(args) => Uses::read_store(&args.source.store)
            .key(&args.source.key)
            .writes("the output", args.data_path.as_deref()),
        // Files in an output directory are checked when their names are known.
        C::Extract(args) => Uses::read_store(&args.store)
            .key(&args.key)
            .writes("the output", args.data_path.as_path()),
        C::DumpHeaders(store) | C::QueryEncryption(store) => Uses::read_store(store),
        C::QuerySize(args) => Uses::read_store(&args.store).key(&args.key),
        C::DumpFileTable(args) | C::Ls(args) => Uses::read_with_key(args),
        C::Verify(args) => Uses::read_with_key(&args.target),
        C::UpdateKey(args) => Uses::change_store(&args.store)
            .reads("the key file", args.key_path.as_path())
            .reads("the new key file", args.new_key_path.as_path()),
        C::Encrypt(cli::Encrypt { target, .. }) | C::Rekey(target) => {
            Uses::change_store(&target.store).reads("the key file", target.key_path.as_path())
        }
        C::Move(args) => Uses::change_store(&args.store).key(&args.key),
        C::Delete(args) | C::AcceptPlain(args) => Uses::change_store(&args.store).key(&args.key),
        C::Scrub(args) => Uses::change_with_key(args),
        C::Grow(args) => Uses::change_store(&args.store),
        C::Upgrade(store) => Uses::change_store(store),
        C::UefiNvram(command) => variables(command),
        C::CopyIgvmfile(args) => Uses::change_store(&args.store)
            .key(&args.key)
            .reads("the DLL", args.data_path.as_path()),
        C::Test(Test::MakeKey { key_path, .. }) => {
            Uses::default().writes("the key file", key_path.as_path())
        }
        C::Test(Test::TwoKeys {
            store,
            first_key_path,
            second_key_path,
            ..
        }) => Uses::change_store(store)
            .writes("the first key file", first_key_path.as_path())
            .writes("the second key file", second_key_path.as_path()),
        C::Completions { .. } => Uses::default(),
    };
    uses.0
}

fn written(args: &cli::Write) -> Uses {
    Uses::change_store(&args.target.store)
        .key(&args.target.key)
        .reads("the input", args.data_path.as_path())
}

fn variables(command: &UefiNvram) -> Uses {
    const JSON: &str = "the JSON document";
    match command {
        UefiNvram::List(args) => Uses::read_with_key(args),
        UefiNvram::Dump(args) => Uses::read_with_key(&args.target)
            .writes("the output", args.style.output_path.as_deref()),
        UefiNvram::DumpFromJson(args) => Uses::default()
            .reads(JSON, args.file_path.as_path())
            .writes("the output", args.style.output_path.as_deref()),
        UefiNvram::Export(args) => {
            Uses::read_with_key(&args.target).writes("the output", args.output_path.as_deref())
        }
        UefiNvram::Import(args) => {
            Uses::change_with_key(&args.target).reads(JSON, args.data_path.as_path())
        }
        UefiNvram::Add(args) => {
            Uses::change_with_key(&args.target).reads("the input", args.data_path.as_path())
        }
        UefiNvram::RemoveEntry(args) => Uses::change_with_key(&args.target),
        UefiNvram::RemoveBootEntries(args) if args.dry_run => Uses::read_with_key(&args.target),
        UefiNvram::RemoveBootEntries(args) => Uses::change_with_key(&args.target),
    }
}
