//! Stores of writers that used a key of zeros: the first change that can, ends that.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod image;

use image::*;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use vmgs::testing::FaultModel;
use vmgs::testing::RecordingDevice;
use vmgs::*;

const SECRET: &[u8] = b"a secret of the guest";

fn faulty() -> (Vec<u8>, Vec<u8>) {
    let image = encrypted(Writer::Faulty).0;
    let table = image[9 * 4096..10 * 4096].to_vec();
    (image, table)
}

fn open(image: &[u8]) -> Vmgs {
    let device = MemoryDevice::with_bytes(512, image.to_vec());
    let mut store = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
    store.unlock(&Key::new(DATASTORE)).unwrap();
    store
}

fn holds(image: &[u8], bytes: &[u8]) -> bool {
    image.windows(bytes.len()).any(|window| window == bytes)
}

#[test]
fn the_first_change_renews_every_key_and_wipes_the_tables() {
    let (image, table) = faulty();
    let ciphertext = image[20 * 4096..20 * 4096 + SECRET.len()].to_vec();
    type Change = fn(&mut Vmgs) -> Result<(), Error>;
    let changes: [Change; 6] = [
        |s| s.write(FileId(6), Protection::Plain, b"changed"),
        |s| s.write(FileId(21), Protection::Encrypted, b"added"),
        |s| s.delete(FileId(6)),
        |s| s.move_file(FileId(6), FileId(7), Overwrite::Refuse),
        |s| s.add_key(&Key::new([9; 32])),
        |s| s.update_key(&Key::new(DATASTORE)),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let device = MemoryDevice::with_bytes(512, image.clone());
        let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
        store.unlock(&Key::new(DATASTORE)).unwrap();
        assert_eq!(store.findings(), [Finding::ZeroMetadataKey]);
        change(&mut store).unwrap();
        assert_eq!(store.findings(), [], "{n}");
        let after = device.to_vec();
        // Neither the old table, which the zero key opens, nor what the keys in it open.
        assert!(!holds(&after, &table[64..256]), "{n}");
        assert!(!holds(&after, &ciphertext), "{n}");
        let mut store = open(&after);
        assert_eq!(store.read(FileId(3)).unwrap(), SECRET);
        assert_eq!(store.verify(|_, _| ()), [], "{n}");
    }
}

#[test]
fn a_crash_leaves_the_finding_or_nothing_to_find() {
    let (image, table) = faulty();
    let device = RecordingDevice::new(512, image);
    let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
    store.unlock(&Key::new(DATASTORE)).unwrap();
    device.restart();
    store
        .write(FileId(6), Protection::Plain, b"changed")
        .unwrap();
    let total = device.operations().len();
    let mut finished = 0;
    for model in FaultModel::ALL {
        device.for_each_crash(model, |cut, what, image| {
            let place = format!("{cut} of {total}, {model:?}: {what}");
            // Any part of the table's keys: it is encrypted by a stream cipher under the zero key.
            let exposed = [64, 80]
                .iter()
                .any(|at| holds(&image, &table[*at..at + 16]));
            let locked = Vmgs::open(
                Box::new(MemoryDevice::with_bytes(512, image.clone())),
                OpenOptions::default(),
            )
            .unwrap()
            .verify(|_, _| ());
            let mut store = open(&image);
            let found = store.findings().contains(&Finding::ZeroMetadataKey);
            assert!(found || !exposed, "{place}");
            assert_eq!(locked.contains(&Finding::ZeroMetadataKey), found, "{place}");
            if cut == total {
                assert!(!found && !exposed, "{place}");
                finished += 1;
            }
            assert_eq!(store.read(FileId(3)).unwrap(), SECRET, "{place}");
            // The next change finishes what was begun.
            let device = MemoryDevice::with_bytes(512, image);
            let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
            store.unlock(&Key::new(DATASTORE)).unwrap();
            store.write(FileId(6), Protection::Plain, b"again").unwrap();
            let image = device.to_vec();
            assert!(!holds(&image, &table[64..80]), "{place}");
            let mut store = open(&image);
            assert_eq!(store.verify(|_, _| ()), [], "{place}");
            assert_eq!(store.read(FileId(3)).unwrap(), SECRET, "{place}");
        });
    }
    assert!(finished > 0);
}

#[test]
fn without_space_for_the_files_the_old_table_goes_nevertheless() {
    let (mut image, table) = faulty();
    // The store ends after the last file, with too few free blocks for a second copy of anything but tables.
    image.truncate(22 * 4096);
    let fill = |store: &mut Vmgs| {
        for id in 22..60 {
            if store.write(FileId(id), Protection::Plain, b"x").is_err() {
                return;
            }
        }
        panic!("the store is too large for this test");
    };
    let device = MemoryDevice::with_bytes(512, image);
    // Without the key nothing is renewed.
    let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
    fill(&mut store);
    assert!(holds(&device.to_vec(), &table[64..80]));
    assert_eq!(store.verify(|_, _| ()), [Finding::ZeroMetadataKey]);
    store.unlock(&Key::new(DATASTORE)).unwrap();
    assert_eq!(store.free_size(), 2 * 4096);
    store.delete(FileId(22)).unwrap();
    let image = device.to_vec();
    assert!(!holds(&image, &table[64..80]));
    let mut store = open(&image);
    assert_eq!(store.verify(|_, _| ()), []);
    assert_eq!(store.read(FileId(3)).unwrap(), SECRET);
}

/// What is a hole stays one.
#[test]
fn wiping_allocates_no_space() {
    let (image, table) = faulty();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &image).unwrap();
    file.as_file().set_len(8 << 30).unwrap();
    let access = StoreAccess::ReadWrite;
    let container = Container::Raw { sector_size: 512 };
    let device = FileDevice::open(file.path(), container, access).unwrap();
    let mut store = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
    store.unlock(&Key::new(DATASTORE)).unwrap();
    store
        .write(FileId(6), Protection::Plain, b"changed")
        .unwrap();
    assert_eq!(store.verify(|_, _| ()), []);
    drop(store);
    let mut start = vec![0; image.len()];
    file.as_file().read_exact_at(&mut start, 0).unwrap();
    assert!(!holds(&start, &table[64..80]));
    let allocated = file.as_file().metadata().unwrap().blocks() * 512;
    assert!(allocated < 4 << 20, "{allocated}");
}

#[test]
fn a_locked_store_stays_exposed_and_is_told_to_be() {
    let (image, _) = faulty();
    let device = MemoryDevice::with_bytes(512, image);
    for _ in 0..3 {
        let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
        store
            .write(FileId(6), Protection::Plain, b"changed")
            .unwrap();
        assert_eq!(store.verify(|_, _| ()), [Finding::ZeroMetadataKey]);
    }
}
