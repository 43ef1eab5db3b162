//! Encryption: locked and unlocked stores, and key changes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::*;
use vmgs::*;

#[test]
fn unencrypted_content_does_not_silently_replace_encrypted() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    store.write(ID, Protection::Encrypted, b"secret").unwrap();
    assert!(matches!(
        store.write(ID, Protection::Plain, b"x"),
        Err(Error::OverwriteEncrypted(_))
    ));
    store
        .write(ID, Protection::PlainOverEncrypted, b"plain")
        .unwrap();
    assert!(!store.file_info(ID).unwrap().encrypted);
    let mut store = open(&device);
    assert_eq!(store.read(ID).unwrap(), b"plain");
    store.unlock(&key(1)).unwrap();
    assert_eq!(store.read(ID).unwrap(), b"plain");
    assert_eq!(store.findings(), []);
}

#[test]
fn a_file_replaced_while_locked_is_reported_and_can_be_accepted() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    store.write(ID, Protection::Encrypted, b"secret").unwrap();
    let mut store = open(&device);
    assert!(matches!(
        store.write(ID, Protection::IfEncrypted, b"x"),
        Err(Error::Locked)
    ));
    store
        .write(ID, Protection::PlainOverEncrypted, b"plain")
        .unwrap();
    // A file that was never encrypted can be written while the store is locked.
    store
        .write(FileId(6), Protection::Plain, b"protector")
        .unwrap();
    store.unlock(&key(1)).unwrap();
    assert!(matches!(
        store.read(ID),
        Err(Error::DamagedFile {
            damage: Damage::ExpectedEncrypted,
            ..
        })
    ));
    assert_eq!(store.findings().len(), 1);
    assert_eq!(store.read(FileId(6)).unwrap(), b"protector");
    // The damage persists over other commits and reopening.
    store.write(FileId(7), Protection::Plain, b"id").unwrap();
    let mut store = open(&device);
    store.unlock(&key(1)).unwrap();
    assert!(store.read(ID).is_err());
    assert_eq!(store.read_stored(ID).unwrap(), b"plain");
    store.accept_plain(ID).unwrap();
    assert_eq!(store.findings(), []);
    let mut store = open(&device);
    store.unlock(&key(1)).unwrap();
    assert_eq!(store.read(ID).unwrap(), b"plain");
    assert_eq!(store.findings(), []);
}

#[test]
fn a_store_that_is_reloaded_stays_unlocked() {
    let (device, mut store) = new_store(512, 64);
    store.reload().unwrap();
    store.encrypt(&key(1)).unwrap();
    store.write(ID, Protection::Encrypted, b"secret").unwrap();
    store.reload().unwrap();
    assert!(!store.is_locked());
    assert_eq!(store.read(ID).unwrap(), b"secret");
    let mut store = open(&device);
    store.reload().unwrap();
    assert!(store.is_locked());
}

#[test]
fn accepting_what_is_not_damaged_changes_nothing() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    store.write(ID, Protection::Encrypted, b"secret").unwrap();
    store.write(FileId(6), Protection::Plain, b"plain").unwrap();
    let before = device.to_vec();
    store.accept_plain(ID).unwrap();
    store.accept_plain(FileId(6)).unwrap();
    assert!(device.to_vec() == before);
    assert!(matches!(
        store.accept_plain(FileId(7)),
        Err(Error::NotAllocated(FileId(7)))
    ));
    assert_eq!(store.read(ID).unwrap(), b"secret");
}

#[test]
fn the_extended_entry_of_a_file_deleted_while_locked_goes_at_the_next_commit() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    store.write(ID, Protection::Encrypted, b"secret").unwrap();
    let mut store = open(&device);
    store.delete(ID).unwrap();
    store.unlock(&key(1)).unwrap();
    assert_eq!(store.findings(), [Finding::StaleExtendedEntry(ID)]);
    store.write(FileId(6), Protection::Plain, b"x").unwrap();
    assert_eq!(store.findings(), []);
    let mut store = open(&device);
    store.unlock(&key(1)).unwrap();
    assert_eq!(store.findings(), []);
}

#[test]
fn keys_can_be_replaced_and_added() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    assert!(matches!(
        store.encrypt(&key(2)),
        Err(Error::AlreadyEncrypted)
    ));
    store.write(ID, Protection::Encrypted, b"secret").unwrap();
    store.update_key(&key(2)).unwrap();
    let opens = |key: &Key| {
        let mut store = open(&device);
        let unlocked = store.unlock(key);
        unlocked.map(|()| assert_eq!(store.read(ID).unwrap(), b"secret"))
    };
    assert!(matches!(opens(&key(1)), Err(Error::WrongKey)));
    opens(&key(2)).unwrap();

    store.add_key(&key(3)).unwrap();
    assert!(matches!(store.add_key(&key(4)), Err(Error::KeysFull)));
    assert_eq!(store.key_count(), 2);
    opens(&key(2)).unwrap();
    opens(&key(3)).unwrap();
    // Both keys open the store after commits with either of them.
    for n in [2, 3] {
        let mut store = open(&device);
        store.unlock(&key(n)).unwrap();
        store
            .write(FileId(21), Protection::Encrypted, &[n])
            .unwrap();
        opens(&key(2)).unwrap();
        opens(&key(3)).unwrap();
    }
    let mut store = open(&device);
    store.unlock(&key(3)).unwrap();
    store.update_key(&key(3)).unwrap();
    assert_eq!(store.key_count(), 1);
    assert!(matches!(opens(&key(2)), Err(Error::WrongKey)));
    opens(&key(3)).unwrap();
    assert!(matches!(store.update_key(&key(0)), Err(Error::ZeroKey)));
}

#[test]
fn replacing_the_key_leaves_no_copy_of_the_old_record() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    let header = HeaderScan::read(&mut device.clone()).unwrap();
    let old = header
        .headers
        .iter()
        .find(|h| h.metadata_keys[0].is_occupied());
    let old = old.unwrap().metadata_keys[0].encrypted_key;
    store.update_key(&key(2)).unwrap();
    assert!(device.with(|bytes| !bytes.windows(32).any(|w| w == old)));
}

#[test]
fn rekey_replaces_all_keys_and_wipes_free_space() {
    let (device, mut store) = new_store(512, 64);
    store
        .write(FileId(5), Protection::Plain, b"formerly plain")
        .unwrap();
    store.encrypt(&key(1)).unwrap();
    store
        .write(FileId(5), Protection::Encrypted, b"now encrypted")
        .unwrap();
    store
        .write(ID, Protection::Encrypted, &pattern(10_000))
        .unwrap();
    assert!(device.with(|b| b.windows(8).any(|w| w == b"formerly")));
    let before = store.read_stored(ID).unwrap();
    assert_eq!(store.rekey().unwrap(), []);
    assert_ne!(store.read_stored(ID).unwrap(), before);
    assert!(device.with(|b| !b.windows(8).any(|w| w == b"formerly")));
    assert!(device.with(|b| !b.windows(64).any(|w| w == &before[..64])));
    let mut store = open(&device);
    store.unlock(&key(1)).unwrap();
    assert_eq!(store.read(ID).unwrap(), pattern(10_000));
    assert_eq!(store.verify(|_, _| ()), []);
}

/// The unused end of a file's last block held other content before.
#[test]
fn the_last_blocks_of_files_hold_no_old_content() {
    for sector in [512, 4096] {
        let (device, mut store) = new_store(sector, 32);
        let left = || device.with(|bytes| bytes.windows(6).filter(|w| w == b"secret").count());
        let secrets = b"secret".repeat(2000);
        store.write(ID, Protection::Plain, &secrets).unwrap();
        store.delete(ID).unwrap();
        assert!(left() > 1000);
        // Files that use those blocks, of which they need little or nothing.
        for id in 21..30 {
            let content = if id % 2 == 0 { &b"x"[..] } else { b"" };
            store.write(FileId(id), Protection::Plain, content).unwrap();
            let (block, _) = store.file_location(FileId(id)).unwrap();
            let block = device.with(|bytes| bytes[block as usize * 4096..][..4096].to_vec());
            assert!(content.is_empty() || block[1..] == [0; 4095]);
        }
        store.scrub().unwrap();
        assert_eq!(left(), 0);
        for id in 21..30 {
            let content = if id % 2 == 0 { &b"x"[..] } else { b"" };
            assert_eq!(store.read(FileId(id)).unwrap(), content);
        }
        assert_eq!(open(&device).verify(|_, _| ()), []);
    }
}

/// Other writers do not clear the end of the last block, and allocate more blocks than needed.
#[test]
fn scrub_wipes_old_content_after_the_end_of_files() {
    let (device, mut store) = new_store(512, 32);
    store.write(ID, Protection::Plain, &pattern(513)).unwrap();
    let (block, _) = store.file_location(ID).unwrap();
    let start = block as usize * 4096;
    device.with(|bytes| bytes[start + 1024..start + 4096].fill(0xee));
    let mut store = open(&device);
    store.scrub().unwrap();
    let left = device.with(|bytes| bytes[start + 513..start + 4096].to_vec());
    assert_eq!(left, [0; 4096 - 513]);
    assert_eq!(open(&device).read(ID).unwrap(), pattern(513));
}
