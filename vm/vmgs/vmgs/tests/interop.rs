//! Compatibility with other implementations: stores as they write them are read, and written stores are
//! decoded with numeric offsets only.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod image;

use aes_gcm::Aes256Gcm;
use aes_gcm::KeyInit;
use aes_gcm::aead::AeadInOut;
use image::*;
use vmgs::*;

#[test]
fn unencrypted_stores_of_other_writers_are_read() {
    for sector in [512, 4096] {
        let mut store = plain(sector).open(sector as u32).unwrap();
        assert_eq!(store.findings(), []);
        assert_eq!(store.active_header(), (1, 7));
        assert_eq!(store.read(FileId(8)).unwrap(), [0xab; 4100]);
        let files: Vec<u32> = store.files().map(|(id, _)| id.0).collect();
        assert_eq!(files, [0, 8, 63]);
    }
}

#[test]
fn encrypted_stores_of_all_writers_are_read() {
    for writer in [Writer::Current, Writer::Faulty, Writer::Early] {
        let mut store = encrypted(writer).open(512).unwrap();
        assert_eq!(store.findings(), []);
        assert_eq!(store.read(FileId(6)).unwrap(), b"plain");
        assert!(matches!(store.read(FileId(3)), Err(Error::Locked)));
        // Encrypted files without attributes, by early writers, are not overwritten by mistake either.
        assert!(matches!(
            store.write(FileId(3), Protection::Plain, b"x"),
            Err(Error::OverwriteEncrypted(_))
        ));
        store.unlock(&Key::new(DATASTORE)).unwrap();
        assert_eq!(store.read(FileId(3)).unwrap(), b"a secret of the guest");
        assert!(store.file_info(FileId(3)).unwrap().encrypted);
        assert_eq!(store.read(FileId(6)).unwrap(), b"plain");
        let warned = store.findings() == [Finding::ZeroMetadataKey];
        assert_eq!(warned, writer == Writer::Faulty);
        assert_eq!(Finding::ZeroMetadataKey.severity(), Severity::Warning);
    }
}

/// The datastore key unwraps this metadata key from the active header.
fn metadata_key(image: &[u8], slot: usize, datastore: [u8; 32]) -> [u8; 32] {
    let record = &image[slot * 512 + 36..slot * 512 + 100];
    let mut key: [u8; 32] = record[32..64].try_into().unwrap();
    unseal(datastore, &record[..12], &record[16..32], &mut key);
    key
}

#[test]
fn a_zero_metadata_key_is_never_written() {
    type Change = fn(&mut Vmgs);
    let changes: [Change; 5] = [
        |s| s.write(FileId(3), Protection::Encrypted, b"x").unwrap(),
        |s| s.delete(FileId(3)).unwrap(),
        |s| s.update_key(&Key::new([0x22; 32])).unwrap(),
        |s| s.add_key(&Key::new([0x22; 32])).unwrap(),
        |s| drop(s.rekey().unwrap()),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let device = MemoryDevice::with_bytes(512, encrypted(Writer::Faulty).0);
        let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
        store.unlock(&Key::new(DATASTORE)).unwrap();
        change(&mut store);
        assert_eq!(store.findings(), []);
        let (slot, _) = store.active_header();
        let image = device.to_vec();
        let mut keys = Vec::new();
        for record in [36, 100] {
            let record = &image[slot * 512 + record..][..64];
            for datastore in [DATASTORE, [0x22; 32]] {
                let mut key: [u8; 32] = record[32..64].try_into().unwrap();
                let opened = Aes256Gcm::new(&datastore.into()).decrypt_inout_detached(
                    record[..12].try_into().unwrap(),
                    b"",
                    (&mut key[..]).into(),
                    record[16..32].try_into().unwrap(),
                );
                keys.extend(opened.is_ok().then_some(key));
            }
        }
        assert!(!keys.is_empty(), "{i}");
        assert!(keys.iter().all(|key| *key != [0; 32]), "{i}");
    }
}

/// Decodes a store that this crate wrote.
#[test]
fn written_stores_have_the_expected_bytes() {
    let device = MemoryDevice::new(512, BLOCKS * 4096);
    let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    store.encrypt(&Key::new(DATASTORE)).unwrap();
    store.write(FileId(6), Protection::Plain, b"plain").unwrap();
    let secret: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    for _ in 0..3 {
        store
            .write(FileId(3), Protection::Encrypted, &secret)
            .unwrap();
    }
    let (slot, sequence) = store.active_header();
    assert_eq!((slot, sequence), (1, 6));

    let image = device.to_vec();
    let u32_at = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let at = slot * 512;
    assert_eq!(&image[at..at + 8], b"GUESTRTS");
    assert_eq!(u32_at(at + 8), 0x0003_0000);
    assert_eq!(u32_at(at + 20), 168);
    assert_eq!(u32_at(at + 28), 1);
    assert_eq!(image[at + 32..at + 36], [1, 0, 0, 0]);
    let mut header = image[at..at + 168].to_vec();
    header[12..16].fill(0);
    assert_eq!(u32_at(at + 12), crc32(&header));

    let table = u32_at(at + 24) as usize * 4096;
    let entry = |id: usize| &image[table + id * 64..table + id * 64 + 64];
    assert_eq!(u32_at(table) as usize * 4096, table);
    assert_eq!(u32_at(table + 4), 1);
    let bytes_of = |id: usize| {
        let size = u64::from_le_bytes(entry(id)[8..16].try_into().unwrap()) as usize;
        let start = u32_at(table + id * 64) as usize * 4096;
        image[start..start + size].to_vec()
    };
    assert_eq!(bytes_of(6), b"plain");
    assert_eq!(entry(6)[16..], [0; 48]);
    assert_eq!(entry(3)[44..48], [3, 0, 0, 0]);
    assert_eq!(entry(3)[48..], [0; 16]);
    // The counter of the nonce is zero.
    assert_eq!(entry(3)[20..28], [0; 8]);

    let metadata = metadata_key(&image, slot, DATASTORE);
    let mut extended = bytes_of(63);
    unseal(
        metadata,
        &entry(63)[16..28],
        &entry(63)[28..44],
        &mut extended,
    );
    assert_eq!(entry(63)[44..48], [3, 0, 0, 0]);
    assert_eq!(extended[6 * 64..7 * 64], [0; 64]);
    assert_eq!(extended[63 * 64..], [0; 64]);
    assert_eq!(extended[3 * 64..3 * 64 + 4], [3, 0, 0, 0]);
    let key: [u8; 32] = extended[3 * 64 + 4..3 * 64 + 36].try_into().unwrap();
    let mut content = bytes_of(3);
    unseal(key, &entry(3)[16..28], &entry(3)[28..44], &mut content);
    assert_eq!(content, secret);
    // The record was wrapped once by `encrypt` and then by each of the three encrypted writes, whose
    // nonces count.
    assert_eq!(image[at + 40..at + 48], [3, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn version_two_is_read_and_upgraded_on_request() {
    for header_len in [32u32, 168] {
        let mut image = single(512);
        image.put(512 + 8, &0x0002_0000u32.to_le_bytes());
        image.put(512 + 20, &header_len.to_le_bytes());
        image.checksum(512, header_len as usize);
        // There is no extended file table, and entries have no attributes.
        image.entry(63, 0, 0, 0, &[]);
        image.entry(8, 20, 2, 4100, &[0xee; 32]);
        let device = MemoryDevice::with_bytes(512, image.0);
        let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
        assert_eq!(store.read(FileId(8)).unwrap(), [0xab; 4100]);
        assert!(matches!(
            store.write(FileId(8), Protection::Plain, b"x"),
            Err(Error::OldVersion(_))
        ));
        store.upgrade().unwrap();
        let mut store = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
        assert_eq!(store.version().to_string(), "3.0");
        assert_eq!(store.read(FileId(8)).unwrap(), [0xab; 4100]);
        store.write(FileId(8), Protection::Plain, b"x").unwrap();
        assert_eq!(store.findings(), []);
    }
}

#[test]
fn header_rules() {
    let code = |change: &dyn Fn(&mut Image)| {
        let mut image = single(512);
        change(&mut image);
        image.checksum(512, 168);
        match image.open(512) {
            Ok(_) => panic!("opened"),
            Err(Error::InvalidFormat { second, .. }) => second,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(code(&|i| i.put(512, b"X")), HeaderError::Signature);
    assert_eq!(code(&|i| i.put(512 + 20, &[169])), HeaderError::Size(169));
    assert_eq!(
        code(&|i| i.put(512 + 24, &[1])),
        HeaderError::TableOffset(1)
    );
    assert_eq!(
        code(&|i| i.put(512 + 24, &[BLOCKS as u8])),
        HeaderError::TableOffset(32)
    );
    assert_eq!(code(&|i| i.put(512 + 28, &[2])), HeaderError::TableSize(2));
    assert_eq!(code(&|i| i.put(512 + 32, &[2])), HeaderError::Algorithm(2));

    let error = |change: &dyn Fn(&mut Image)| {
        let mut image = single(512);
        change(&mut image);
        image.open(512).err().unwrap()
    };
    assert!(matches!(
        error(&|i| i.put(512 + 40, &[1])),
        Error::InvalidFormat {
            second: HeaderError::Checksum { .. },
            ..
        }
    ));
    assert!(matches!(
        error(&|i| i.put(512, b"EFI PART")),
        Error::V1Format
    ));
    assert!(matches!(error(&|i| i.put(0, &[0; 8192])), Error::Empty));
    for version in [0x0003_0001u32, 0x0001_0000] {
        let unsupported = error(&|i| {
            i.put(512 + 8, &version.to_le_bytes());
            i.checksum(512, 168);
        });
        assert!(
            matches!(unsupported, Error::UnsupportedVersion(_)),
            "{unsupported}"
        );
    }
    for sequence in [7, 5, 9] {
        let gap = error(&|i| i.header(0, 0x0003_0000, sequence, 0, &[]));
        assert!(matches!(gap, Error::SequenceGap { second: 7, .. }), "{gap}");
    }
    for (sequence, slot) in [(6, 1), (8, 0)] {
        let mut image = single(512);
        image.header(0, 0x0003_0000, sequence, 0, &[]);
        assert_eq!(image.open(512).unwrap().active_header().0, slot);
    }
}

/// Unsupported versions may have headers of any length. Their content may be intact, so no policy
/// formats them.
#[test]
fn stores_of_unsupported_versions_are_reported_and_not_changed() {
    let versions = [
        (0x0001_0000u32, 32usize),
        (0x0001_0001, 32),
        (0x0001_0000, 168),
        (0x0003_0001, 168),
        (0x0004_0000, 256),
        (0x0004_0002, 512),
    ];
    for (version, len) in versions {
        for at in [0, 512] {
            let mut image = Image(vec![0; BLOCKS * 4096]);
            image.header(at, version, 7, 0, &[]);
            image.put(at + 20, &(len as u32).to_le_bytes());
            image.put(at + len - 4, &[0xa5; 4]);
            image.checksum(at, len);
            let open = |image: &Image| {
                let device = MemoryDevice::with_bytes(512, image.0.clone());
                let policy = OpenPolicy {
                    on_empty: OnProblem::Format,
                    on_corrupt: OnProblem::Format,
                };
                Vmgs::open_or_format(Box::new(device), OpenOptions::default(), policy)
            };
            match open(&image).err().unwrap() {
                Error::UnsupportedVersion(found) => assert_eq!(found.0, version),
                error => panic!("{version:#x} {len}: {error}"),
            }
            // The version in a damaged header is not trusted.
            image.0[at + len - 1] ^= 1;
            let formatted = open(&image).unwrap();
            assert_eq!(formatted.provisioned(), Some(ProvisioningReason::Failure));
        }
    }
}

/// What other writers leave if they are interrupted while they replace a key, and then write the store:
/// the second record holds the previous metadata key.
#[test]
fn a_stale_key_is_distinguished_from_a_wrong_one() {
    let wrap = |datastore, metadata: [u8; 32]| {
        let nonce = [7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut wrapped = metadata;
        let tag = seal(datastore, nonce, &mut wrapped);
        [&nonce[..], &[0; 4], &tag, &wrapped].concat()
    };
    let old = [0x22; 32];
    let with_second = |record: &[u8]| {
        let mut image = encrypted(Writer::Current);
        for at in [0, 512] {
            image.put(at + 100, record);
            image.checksum(at, 168);
        }
        image
    };
    let image = with_second(&wrap(old, [0x33; 32]));
    let mut store = image.open(512).unwrap();
    let error = store.unlock(&Key::new(old)).unwrap_err();
    assert!(matches!(error, Error::StaleKey { record: 1 }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(store.is_locked());
    let error = store.unlock(&Key::new([0x44; 32])).unwrap_err();
    assert!(matches!(error, Error::WrongKey), "{error}");
    store.unlock(&Key::new(DATASTORE)).unwrap();
    assert_eq!(store.read(FileId(3)).unwrap(), b"a secret of the guest");
    store.update_key(&Key::new(DATASTORE)).unwrap();
    assert_eq!(store.key_count(), 1);
    // The second record holds the current metadata key: both keys open the store.
    let image = with_second(&wrap(old, [0x80; 32]));
    for key in [old, DATASTORE] {
        let mut store = image.open(512).unwrap();
        store.unlock(&Key::new(key)).unwrap();
        assert_eq!(store.read(FileId(3)).unwrap(), b"a secret of the guest");
    }
    // The same key opens both records, of which the first is stale.
    let mut image = with_second(&wrap(DATASTORE, [0x80; 32]));
    for at in [0, 512] {
        image.put(at + 36, &wrap(DATASTORE, [0x33; 32]));
        image.checksum(at, 168);
    }
    let mut store = image.open(512).unwrap();
    store.unlock(&Key::new(DATASTORE)).unwrap();
    assert_eq!(store.read(FileId(3)).unwrap(), b"a secret of the guest");
}

#[test]
fn a_zero_metadata_key_is_found_without_a_key() {
    for (writer, expected) in [
        (Writer::Faulty, &[Finding::ZeroMetadataKey][..]),
        (Writer::Current, &[]),
        (Writer::Early, &[]),
    ] {
        let mut store = encrypted(writer).open(512).unwrap();
        assert_eq!(store.verify(|_, _| ()), expected);
        // Unlocking does not report it twice.
        store.unlock(&Key::new(DATASTORE)).unwrap();
        assert_eq!(store.verify(|_, _| ()), expected);
    }
}

/// The store was written since by a writer without the fault, which leaves the older table in a free block.
#[test]
fn tables_with_a_zero_key_in_free_blocks_are_found() {
    for (from, at, tables) in [
        (Writer::Faulty, &[12][..], 1),
        (Writer::Faulty, &[13, 31], 2),
        (Writer::Current, &[12], 0),
    ] {
        let table = encrypted(from).0[9 * 4096..10 * 4096].to_vec();
        let mut image = encrypted(Writer::Current);
        for block in at {
            image.put(block * 4096, &table);
        }
        let expected = match tables {
            0 => Vec::new(),
            tables => vec![Finding::ZeroKeyTablesLeft { tables }],
        };
        let mut store = image.open(512).unwrap();
        assert_eq!(store.verify(|_, _| ()), expected);
        store.unlock(&Key::new(DATASTORE)).unwrap();
        assert_eq!(store.verify(|_, _| ()), expected);
        // A change does not end it. New keys and wiped free space do.
        store.delete(FileId(6)).unwrap();
        assert_eq!(store.verify(|_, _| ()), expected);
        store.rekey().unwrap();
        assert_eq!(store.verify(|_, _| ()), []);
    }
    let left = Finding::ZeroKeyTablesLeft { tables: 1 };
    assert_eq!(left.severity(), Severity::Warning);
    assert_eq!(left.code(), "zero-key-tables-left");
}

#[test]
fn an_extended_table_with_content_in_an_unencrypted_store_is_noted() {
    let mut image = plain(512);
    assert_eq!(image.open(512).unwrap().verify(|_, _| ()), []);
    image.put(9 * 4096 + 70, &[1]);
    let findings = image.open(512).unwrap().verify(|_, _| ());
    assert_eq!(findings, [Finding::ReservedNotZero("extended file table")]);
    assert_eq!(findings[0].severity(), Severity::Note);
}
