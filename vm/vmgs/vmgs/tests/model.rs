//! Random sequences of operations, compared with a model, with reopening, failures and crashes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use std::collections::BTreeMap;
use vmgs::testing::Fault;
use vmgs::testing::FaultModel;
use vmgs::testing::RecordingDevice;
use vmgs::*;

#[derive(Debug, Clone)]
enum Action {
    Write(u32, u16, u8),
    Encrypted(u32, u16, u8),
    Stream(u32, u16, u8),
    Delete(u32),
    Move(u32, u32),
    Several(Vec<(u32, u16)>, u32),
    Key(u8),
    Rekey,
    Reopen,
    Fail(u8, bool),
    Crash(u8, u8),
}

fn action() -> impl Strategy<Value = Action> {
    let id = 1u32..8;
    let len = prop_oneof![Just(0u16), Just(8), Just(4096), 1..20_000u16];
    prop_oneof![
        4 => (id.clone(), len.clone(), any::<u8>()).prop_map(|(i, l, b)| Action::Write(i, l, b)),
        4 => (id.clone(), len.clone(), any::<u8>()).prop_map(|(i, l, b)| Action::Encrypted(i, l, b)),
        2 => (id.clone(), len.clone(), any::<u8>()).prop_map(|(i, l, b)| Action::Stream(i, l, b)),
        2 => id.clone().prop_map(Action::Delete),
        2 => (id.clone(), id.clone()).prop_map(|(a, b)| Action::Move(a, b)),
        2 => (prop::collection::vec((id.clone(), len), 0..3), id).prop_map(|(w, d)| Action::Several(w, d)),
        1 => (1u8..4).prop_map(Action::Key),
        1 => Just(Action::Rekey),
        2 => Just(Action::Reopen),
        2 => (0u8..6, any::<bool>()).prop_map(|(n, e)| Action::Fail(n, e)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Action::Crash(a, b)),
    ]
}

type Files = BTreeMap<u32, Vec<u8>>;

struct World {
    device: RecordingDevice,
    store: Vmgs,
    files: Files,
    key: Option<u8>,
}

impl World {
    fn open(device: &RecordingDevice, keys: &[Option<u8>]) -> (Vmgs, Option<u8>) {
        let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
        if !store.is_encrypted() {
            return (store, None);
        }
        for n in keys.iter().flatten() {
            if store.unlock(&Key::new([*n; 32])).is_ok() {
                return (store, Some(*n));
            }
        }
        panic!("none of {keys:?} opens the store");
    }

    fn actual(store: &mut Vmgs) -> Files {
        let ids: Vec<FileId> = store.files().map(|(id, _)| id).collect();
        ids.into_iter()
            .filter(|id| (1..63).contains(&id.0))
            .map(|id| (id.0, store.read(id).unwrap()))
            .collect()
    }

    /// Runs an action. Returns the result, and the expected files and key if it succeeds.
    fn run(&mut self, action: &Action) -> (Result<(), Error>, Files, Option<u8>) {
        let content = |len: u16, byte: u8| vec![byte; usize::from(len)];
        let mut files = self.files.clone();
        let mut key = self.key;
        let result = match action {
            Action::Write(id, len, byte) => {
                files.insert(*id, content(*len, *byte));
                let protection = Protection::PlainOverEncrypted;
                self.store
                    .write(FileId(*id), protection, &content(*len, *byte))
            }
            Action::Encrypted(id, len, byte) => {
                files.insert(*id, content(*len, *byte));
                self.store
                    .write(FileId(*id), Protection::IfEncrypted, &content(*len, *byte))
            }
            Action::Stream(id, len, byte) => {
                files.insert(*id, content(*len, *byte));
                self.store.write_from(
                    FileId(*id),
                    Protection::IfEncrypted,
                    u64::from(*len),
                    &mut std::io::Read::take(std::io::repeat(*byte), u64::from(*len)),
                )
            }
            Action::Delete(id) => {
                files.remove(id);
                self.store.delete(FileId(*id))
            }
            Action::Move(from, to) => {
                if let Some(moved) = files.remove(from) {
                    files.insert(*to, moved);
                }
                self.store
                    .move_file(FileId(*from), FileId(*to), Overwrite::Allow)
            }
            Action::Several(writes, delete) => {
                let contents: Vec<_> = writes.iter().map(|(_, len)| content(*len, 0x5e)).collect();
                let mut commit = Commit::new().delete_if_present(FileId(*delete));
                files.remove(delete);
                for ((id, _), content) in writes.iter().zip(&contents) {
                    files.insert(*id, content.clone());
                    commit = commit.write(FileId(*id), Protection::IfEncrypted, content);
                }
                self.store.commit(commit)
            }
            Action::Key(n) => {
                key = Some(*n);
                self.store.update_key(&Key::new([*n; 32]))
            }
            Action::Rekey => self.store.rekey().map(|left| assert_eq!(left, [])),
            Action::Reopen | Action::Fail(..) | Action::Crash(..) => Ok(()),
        };
        (result, files, key)
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::NoSpace { .. } | Error::NotAllocated(_) | Error::NamedTwice(_) | Error::NotEncrypted
    )
}

fn play(sector: u32, blocks: usize, actions: &[Action]) -> Result<(), TestCaseError> {
    let device = RecordingDevice::new(sector, vec![0; blocks * 4096]);
    let store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    device.restart();
    let mut world = World {
        device,
        store,
        files: Files::new(),
        key: None,
    };
    let mut failing = None;
    for (i, action) in actions.iter().enumerate() {
        match action {
            Action::Reopen => {
                (world.store, _) = World::open(&world.device, &[world.key]);
            }
            Action::Fail(n, effect) => {
                failing = Some(if *effect {
                    Fault::FailsAfterEffect((*n).into())
                } else {
                    Fault::Fails((*n).into())
                });
            }
            Action::Crash(model, which) => {
                // Make the next change, which the crash keeps or loses.
                let Some(next) = actions.get(i + 1) else {
                    continue;
                };
                world.device.restart();
                let (old_files, old_key) = (world.files.clone(), world.key);
                let (result, files, key) = world.run(next);
                let (files, key) = if result.is_ok() {
                    (files, key)
                } else {
                    (old_files.clone(), old_key)
                };
                let model = FaultModel::ALL[usize::from(*model) % 3];
                let mut count = 0;
                world.device.for_each_crash(model, |_, _, _| count += 1);
                let chosen = usize::from(*which) * count / 256;
                let mut image = world.device.content();
                let mut n = 0;
                world.device.for_each_crash(model, |_, _, content| {
                    if n == chosen {
                        image = content;
                    }
                    n += 1;
                });
                world.device = RecordingDevice::new(sector, image);
                (world.store, world.key) = World::open(&world.device, &[old_key, key]);
                world.files = World::actual(&mut world.store);
                let rekeying = matches!(next, Action::Rekey);
                prop_assert!(world.files == old_files || world.files == files || rekeying);
            }
            change => {
                world.device.inject(failing.take());
                let (result, files, key) = world.run(change);
                world.device.inject(None);
                match result {
                    Ok(()) => {
                        world.files = files;
                        world.key = key;
                    }
                    Err(error) if is_refusal(&error) => {}
                    Err(Error::Write { .. } | Error::Flush(_)) => {
                        let old = world.key;
                        (world.store, world.key) = World::open(&world.device, &[old, key]);
                        let actual = World::actual(&mut world.store);
                        prop_assert!(actual == world.files || actual == files);
                        world.files = actual;
                    }
                    Err(error) => prop_assert!(false, "{change:?}: {error}"),
                }
            }
        }
        let actual = World::actual(&mut world.store);
        prop_assert!(
            actual == world.files,
            "after {action:?}: {:?} for {:?}",
            actual.iter().map(|(k, v)| (k, v.len())).collect::<Vec<_>>(),
            world
                .files
                .iter()
                .map(|(k, v)| (k, v.len()))
                .collect::<Vec<_>>()
        );
        let used: u64 = world
            .files
            .values()
            .map(|f| f.len().div_ceil(4096).max(1) as u64)
            .sum();
        prop_assert_eq!(world.store.free_size(), (blocks as u64 - 4 - used) * 4096);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_store_behaves_like_a_map(
        sector in prop_oneof![Just(512u32), Just(4096)],
        blocks in 10usize..60,
        actions in prop::collection::vec(action(), 1..40),
    ) {
        play(sector, blocks, &actions)?;
    }

    #[test]
    fn a_mangled_store_causes_no_panic(
        edits in prop::collection::vec((0usize..10 * 4096, any::<u8>()), 1..30),
        fix_checksums: bool,
        unlock: bool,
    ) {
        let device = MemoryDevice::new(512, 16 * 4096);
        let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        store.encrypt(&Key::new([1; 32])).unwrap();
        store.write(FileId(1), Protection::Encrypted, &[1; 5000]).unwrap();
        store.write(FileId(2), Protection::Plain, &[2; 100]).unwrap();
        device.with(|bytes| {
            for (at, value) in edits {
                bytes[at] = value;
            }
            if fix_checksums {
                for at in [0, 512] {
                    let sum = vmgs_format::Header::checksum_of(&bytes[at..at + 168]);
                    bytes[at + 12..at + 16].copy_from_slice(&sum.to_le_bytes());
                }
            }
        });
        let Ok(mut store) = Vmgs::open(Box::new(device), OpenOptions::default()) else {
            return Ok(());
        };
        if unlock {
            let _ = store.unlock(&Key::new([1; 32]));
        }
        store.verify(|_, _| ());
        for id in (0..65).map(FileId) {
            let _ = store.read(id);
            let _ = store.read_stored(id);
            let _ = store.write(id, Protection::IfEncrypted, &[3; 100]);
        }
    }
}
