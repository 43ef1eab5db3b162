//! A device that changes while it is read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::*;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use vmgs::*;

/// A disk that gives other bytes for a block when it is read the second time.
#[derive(Clone)]
struct Changing {
    disk: MemoryDevice,
    /// The block, and how often it was read since that was set.
    watched: Arc<Mutex<Option<(u64, usize)>>>,
}

impl BlockDevice for Changing {
    fn sector_size(&self) -> u32 {
        512
    }
    fn sector_count(&self) -> u64 {
        self.disk.sector_count()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)?;
        if let Some((block, reads)) = &mut *self.watched.lock().unwrap()
            && (offset..offset + buf.len() as u64).contains(&(*block * 4096))
        {
            *reads += 1;
            if *reads == 2 {
                buf[(*block * 4096 - offset) as usize] ^= 1;
            }
        }
        Ok(())
    }
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

fn watched() -> (Changing, Vmgs) {
    let device = Changing {
        disk: MemoryDevice::new(512, 64 * 4096),
        watched: Arc::default(),
    };
    let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    store.encrypt(&key(1)).unwrap();
    store
        .write(ID, Protection::Encrypted, &pattern(9000))
        .unwrap();
    let (block, _) = store.file_location(ID).unwrap();
    *device.watched.lock().unwrap() = Some((block.into(), 0));
    (device, store)
}

#[test]
fn the_second_read_of_a_file_is_authenticated_too() {
    let (device, mut store) = watched();
    let mut content = Vec::new();
    let error = store.read_to(ID, &mut content).unwrap_err();
    assert!(matches!(error, Error::Authentication(ID)), "{error}");
    assert_eq!(device.watched.lock().unwrap().unwrap().1, 2);
}

#[test]
fn what_rekey_copies_is_authenticated_too() {
    let (device, mut store) = watched();
    let before = store.active_header();
    let error = store.rekey().unwrap_err();
    assert!(matches!(error, Error::Authentication(ID)), "{error}");
    assert_eq!(store.active_header(), before);
    *device.watched.lock().unwrap() = None;
    assert_eq!(store.read(ID).unwrap(), pattern(9000));
}

/// The metadata key stays while there are two datastore keys, so a nonce must not repeat: all its bytes are random.
#[test]
fn the_table_of_a_store_with_two_keys_gets_nonces_that_do_not_repeat() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    store.add_key(&key(2)).unwrap();
    let mut counters = std::collections::BTreeSet::new();
    for round in 0..8u8 {
        store.write(ID, Protection::Encrypted, &[round]).unwrap();
        let (table, _) = store.file_location(FileId::FILE_TABLE).unwrap();
        // Entry 63: the nonce is at byte 16, and its last eight bytes are a counter in other stores.
        let at = table as usize * 4096 + 63 * 64 + 16 + 4;
        let counter: [u8; 8] = device.with(|bytes| bytes[at..at + 8].try_into().unwrap());
        assert!(counters.insert(counter), "{counter:?}");
    }
}

/// Other readers take a file whose ciphertext is nothing but zeros for damaged.
#[test]
fn short_encrypted_files_can_be_read_by_other_readers() {
    let (_, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    for _ in 0..2000 {
        store.write(ID, Protection::Encrypted, b"x").unwrap();
        assert_ne!(store.read_stored(ID).unwrap(), [0]);
        assert_eq!(store.read(ID).unwrap(), b"x");
    }
    // An encrypted one of no bytes they never read.
    for protection in [Protection::Encrypted, Protection::IfEncrypted] {
        store.write(ID, protection, b"").unwrap();
        assert!(!store.file_info(ID).unwrap().encrypted);
        assert_eq!(store.read(ID).unwrap(), b"");
    }
}

#[test]
fn an_empty_file_in_an_encrypted_store_has_the_bytes_of_a_plain_one() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    store.write(ID, Protection::Encrypted, b"").unwrap();
    let (table, _) = store.file_location(FileId::FILE_TABLE).unwrap();
    let at = table as usize * 4096 + ID.0 as usize * 64;
    let entry = device.with(|bytes| bytes[at..at + 64].to_vec());
    // Size, nonce, tag and attributes.
    assert_eq!(entry[8..48], [0; 40]);
    let mut store = open(&device);
    // It needs no key, and the extended table agrees.
    assert_eq!(store.read(ID).unwrap(), b"");
    store.unlock(&key(1)).unwrap();
    assert_eq!(store.read(ID).unwrap(), b"");
    assert_eq!(store.verify(|_, _| ()), []);
}
