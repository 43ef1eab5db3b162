//! Crash consistency by enumeration: for every operation, every point at which it can be cut, and
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
//! every possible content of the medium, the store opens with its complete old or new content.

use std::collections::BTreeMap;
use vmgs::testing::Fault;
use vmgs::testing::FaultModel;
use vmgs::testing::RecordingDevice;
use vmgs::*;

/// The content of a store: the files, and the number of free blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    files: BTreeMap<u32, (Vec<u8>, bool)>,
    free: u64,
}

/// A step that changes the store, and the key that opens it afterwards.
struct Step {
    name: &'static str,
    key: Option<u8>,
    run: fn(&mut Vmgs) -> Result<(), Error>,
}

fn key(n: u8) -> Key {
    Key::new([n; 32])
}

fn content(n: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| n ^ (i / 16) as u8).collect()
}

fn open(content: Vec<u8>, sector: u32, keys: &[Option<u8>]) -> Result<Vmgs, Error> {
    let device = MemoryDevice::with_bytes(sector, content);
    let mut store = Vmgs::open(Box::new(device), OpenOptions::default())?;
    if store.is_encrypted() {
        let unlocked = keys
            .iter()
            .flatten()
            .any(|n| store.unlock(&key(*n)).is_ok());
        assert!(unlocked, "no key opens the store: {keys:?}");
    }
    Ok(store)
}

fn contents(store: &mut Vmgs) -> Contents {
    let ids: Vec<_> = store
        .files()
        .filter(|(id, _)| (1..63).contains(&id.0))
        .collect();
    Contents {
        files: ids
            .into_iter()
            .map(|(id, info)| (id.0, (store.read(id).unwrap(), info.encrypted)))
            .collect(),
        free: store.free_size(),
    }
}

fn plain_steps() -> Vec<Step> {
    fn step(name: &'static str, run: fn(&mut Vmgs) -> Result<(), Error>) -> Step {
        Step {
            name,
            key: None,
            run,
        }
    }
    vec![
        step("add", |s| s.write(FileId(1), Protection::Plain, b"first")),
        step("add larger", |s| {
            s.write(FileId(2), Protection::Plain, &content(2, 9001))
        }),
        step("replace", |s| {
            s.write(FileId(1), Protection::Plain, &content(3, 4097))
        }),
        step("replace by nothing", |s| {
            s.write(FileId(1), Protection::Plain, b"")
        }),
        step("stream", |s| {
            s.write_from(
                FileId(3),
                Protection::Plain,
                5000,
                &mut &content(4, 5000)[..],
            )
        }),
        step("move", |s| {
            s.move_file(FileId(2), FileId(4), Overwrite::Refuse)
        }),
        step("move over", |s| {
            s.move_file(FileId(4), FileId(3), Overwrite::Allow)
        }),
        step("several", |s| {
            s.commit(
                Commit::new()
                    .write(FileId(14), Protection::Plain, &[0xff; 8])
                    .write(FileId(19), Protection::Plain, content(5, 6000))
                    .delete(FileId(1)),
            )
        }),
        step("delete", |s| s.delete(FileId(19))),
        step("again", |s| s.write(FileId(1), Protection::Plain, b"last")),
        step("scrub", Vmgs::scrub),
    ]
}

fn encrypted_steps() -> Vec<Step> {
    fn step(name: &'static str, n: u8, run: fn(&mut Vmgs) -> Result<(), Error>) -> Step {
        Step {
            name,
            key: Some(n),
            run,
        }
    }
    vec![
        step("plain before", 1, |s| {
            s.write(FileId(6), Protection::Plain, b"protector")
        }),
        step("encrypt", 1, |s| s.encrypt(&key(1))),
        step("add", 1, |s| {
            s.write(FileId(1), Protection::Encrypted, b"first")
        }),
        step("replace", 1, |s| {
            s.write(FileId(1), Protection::Encrypted, &content(7, 5000))
        }),
        step("plain beside", 1, |s| {
            s.write(FileId(6), Protection::Plain, b"changed")
        }),
        step("several", 1, |s| {
            s.commit(
                Commit::new()
                    .write(FileId(2), Protection::Encrypted, content(8, 4096))
                    .write(FileId(14), Protection::Plain, &[1; 8])
                    .delete_if_present(FileId(19)),
            )
        }),
        step("move", 1, |s| {
            s.move_file(FileId(2), FileId(3), Overwrite::Refuse)
        }),
        step("update key", 2, |s| s.update_key(&key(2))),
        step("add key", 2, |s| s.add_key(&key(3))),
        step("write with two keys", 2, |s| {
            s.write(FileId(1), Protection::Encrypted, b"both")
        }),
        step("rekey", 2, |s| s.rekey().map(drop)),
        step("plain over encrypted", 2, |s| {
            s.write(FileId(3), Protection::PlainOverEncrypted, b"plain")
        }),
        step("delete", 2, |s| s.delete(FileId(1))),
    ]
}

/// How the store is opened for each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    /// One handle for all steps.
    Continuous,
    /// A new handle for each step.
    Reopened,
}

/// Runs the steps in sequence, and checks every crash in each. With fewer `blocks`, blocks are reused more
/// often.
fn enumerate(sector: u32, blocks: usize, steps: Vec<Step>, session: Session) -> usize {
    let device = RecordingDevice::new(sector, vec![0; blocks * 4096]);
    let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    let mut known: Vec<Option<u8>> = vec![steps[0].key];
    let mut before = contents(&mut store);
    let mut checked = 0;
    for step in steps {
        device.restart();
        if session == Session::Reopened {
            store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
            if store.is_encrypted() {
                assert!(
                    known
                        .iter()
                        .flatten()
                        .any(|n| store.unlock(&key(*n)).is_ok())
                );
            }
        }
        match (step.run)(&mut store) {
            // A small store may have no space, but then nothing changes.
            Err(Error::NoSpace { .. } | Error::NotAllocated(_)) => {
                assert_eq!(contents(&mut store), before, "{}", step.name);
                continue;
            }
            result => result.unwrap(),
        }
        known.push(step.key);
        let after = contents(&mut store);
        let total = device.operations().len();
        for model in FaultModel::ALL {
            device.for_each_crash(model, |cut, what, image| {
                checked += 1;
                let place = || format!("{} cut at {cut} of {total}, {model:?}: {what}", step.name);
                let mut reopened = open(image, sector, &known)
                    .unwrap_or_else(|error| panic!("{}: {error}", place()));
                for finding in reopened.findings() {
                    assert!(
                        matches!(finding, Finding::DamagedHeader { .. }),
                        "{}: {finding}",
                        place()
                    );
                }
                let found = contents(&mut reopened);
                if cut == total {
                    assert_eq!(found, after, "{}: it had returned", place());
                } else {
                    assert!(found == before || found == after, "{}: {found:?}", place());
                }
                // The store can be changed further: the crash leaves no blocks in use.
                let free = reopened.free_size();
                let id = FileId(60);
                match reopened.write(id, Protection::Plain, b"alive") {
                    Ok(()) => {
                        assert_eq!(reopened.read(id).unwrap(), b"alive");
                        reopened.delete(id).unwrap();
                        assert_eq!(reopened.free_size(), free, "{}", place());
                        assert_eq!(contents(&mut reopened), found, "{}", place());
                    }
                    Err(Error::NoSpace { .. }) => assert!(free <= 3 * 4096, "{}", place()),
                    Err(error) => panic!("{}: {error}", place()),
                }
            });
        }
        before = after;
    }
    checked
}

#[test]
fn every_cut_of_every_plain_operation() {
    let mut checked = 0;
    for sector in [512, 4096] {
        for session in [Session::Continuous, Session::Reopened] {
            // With space for two generations, and with almost no free space.
            for blocks in [32, 13, 11] {
                checked += enumerate(sector, blocks, plain_steps(), session);
            }
        }
    }
    assert!(checked > 10_000, "{checked}");
    println!("{checked} contents of the medium checked");
}

#[test]
fn every_cut_of_every_operation_on_an_encrypted_store() {
    let mut checked = 0;
    for sector in [512, 4096] {
        for session in [Session::Continuous, Session::Reopened] {
            for blocks in [32, 12] {
                checked += enumerate(sector, blocks, encrypted_steps(), session);
            }
        }
    }
    assert!(checked > 10_000, "{checked}");
    println!("{checked} contents of the medium checked");
}

/// The last header was written but not flushed, because the process was killed: the header is in the
/// cache, and the next process reads it from there.
#[test]
fn commits_after_a_killed_process_are_safe_with_its_header_still_cached() {
    // In the smallest store, the blocks of the previous generation are reused at once.
    for blocks in [32, 10, 7] {
        let device = RecordingDevice::new(512, vec![0; blocks * 4096]);
        let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        store.write(FileId(1), Protection::Plain, b"zero").unwrap();
        device.restart();
        let mut states = vec![contents(&mut store)];
        // The flush after data, table, flush and header fails.
        device.inject(Some(Fault::Fails(4)));
        assert!(store.write(FileId(1), Protection::Plain, b"one").is_err());
        assert!(matches!(
            store.write(FileId(1), Protection::Plain, b"never"),
            Err(Error::InDoubt)
        ));
        drop(store);
        let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
        states.push(contents(&mut store));
        assert_eq!(states[1].files[&1].0, b"one");
        for text in [b"two", b"tri"] {
            store.write(FileId(1), Protection::Plain, text).unwrap();
            states.push(contents(&mut store));
        }
        for model in FaultModel::ALL {
            device.for_each_crash(model, |cut, what, image| {
                let found = contents(&mut open(image, 512, &[]).unwrap());
                assert!(
                    states.contains(&found),
                    "cut at {cut}, {model:?}: {what}: {found:?}"
                );
            });
        }
    }
}

/// Formatting over a store leaves the old store, an empty device, or the new store.
#[test]
fn every_cut_of_formatting_over_a_store() {
    for sector in [512, 4096] {
        for generations in [1, 2] {
            let device = RecordingDevice::new(sector, vec![0; 16 * 4096]);
            let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
            for n in 0..generations {
                store.write(FileId(1), Protection::Plain, &[n]).unwrap();
            }
            let old = contents(&mut store);
            drop(store);
            device.restart();
            let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
            let new = contents(&mut store);
            let total = device.operations().len();
            for model in FaultModel::ALL {
                device.for_each_crash(model, |cut, what, image| {
                    let device = MemoryDevice::with_bytes(sector, image);
                    match Vmgs::open(Box::new(device), OpenOptions::default()) {
                        Ok(mut store) => {
                            let found = contents(&mut store);
                            assert!(found == old || found == new, "{cut} {what}: {found:?}");
                            assert!(cut < total || found == new);
                        }
                        Err(error) => {
                            // Zeros, or a header torn while it was zeroed or written: nothing of the old
                            // store is taken for a new one, and a policy can format the device again.
                            assert!(
                                matches!(error, Error::Empty | Error::InvalidFormat { .. }),
                                "{cut} {what}: {error}"
                            );
                            assert!(cut < total);
                        }
                    }
                });
            }
        }
    }
}

/// Fails every write and flush of every operation once, with and without effect.
#[test]
fn a_failed_change_has_no_effect_or_is_in_doubt() {
    for (steps, blocks) in [
        (plain_steps(), 32),
        (plain_steps(), 12),
        (encrypted_steps(), 32),
    ] {
        let device = RecordingDevice::new(512, vec![0; blocks * 4096]);
        let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        let mut known: Vec<Option<u8>> = vec![steps[0].key];
        for step in steps {
            known.push(step.key);
            let mut completed = false;
            for n in 0.. {
                for fault in [Fault::Fails(n), Fault::FailsAfterEffect(n)] {
                    let image = device.content();
                    let trial = RecordingDevice::new(512, image);
                    let mut handle =
                        Vmgs::open(Box::new(trial.clone()), OpenOptions::default()).unwrap();
                    if handle.is_encrypted() {
                        assert!(
                            known
                                .iter()
                                .flatten()
                                .any(|n| handle.unlock(&key(*n)).is_ok())
                        );
                    }
                    let before = contents(&mut handle);
                    trial.inject(Some(fault));
                    let result = (step.run)(&mut handle);
                    trial.inject(None);
                    let now = contents(&mut handle);
                    match result {
                        Ok(()) => completed = true,
                        Err(Error::NoSpace { .. } | Error::NotAllocated(_)) => completed = true,
                        Err(Error::Write { .. } | Error::Flush(_)) => {
                            // The handle has the old content, or that after the first of several commits.
                            assert_eq!(now.files.len(), before.files.len(), "{}", step.name);
                            // In doubt or not, the store can be changed after reloading it.
                            if handle.reload().is_err() {
                                // The header has the new key of an update that was in doubt.
                                let opened = known
                                    .iter()
                                    .flatten()
                                    .any(|n| handle.unlock(&key(*n)).is_ok());
                                assert!(opened, "{} {fault:?}", step.name);
                            } else if handle.is_locked() {
                                assert!(
                                    known
                                        .iter()
                                        .flatten()
                                        .any(|n| handle.unlock(&key(*n)).is_ok())
                                );
                            }
                            let reloaded = contents(&mut handle);
                            handle
                                .write(FileId(61), Protection::Plain, b"")
                                .or_else(|error| match error {
                                    Error::NoSpace { .. } => Ok(()),
                                    error => Err(error),
                                })
                                .unwrap();
                            let mut after = contents(&mut handle);
                            after.files.remove(&61);
                            assert_eq!(after.files, reloaded.files, "{} {fault:?}", step.name);
                        }
                        Err(error) => panic!("{} {fault:?}: {error}", step.name),
                    }
                }
                if completed {
                    break;
                }
            }
            match (step.run)(&mut store) {
                Ok(()) | Err(Error::NoSpace { .. } | Error::NotAllocated(_)) => {}
                Err(error) => panic!("{}: {error}", step.name),
            }
        }
    }
}
