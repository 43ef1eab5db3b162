//! Reading and writing files through the public interface.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::*;
use vmgs::testing::RecordingDevice;
use vmgs::*;

const SECTORS: [u32; 2] = [512, 4096];

#[test]
fn a_new_default_store_has_the_known_bytes() {
    use sha2::Digest;
    let (device, _) = new_store(512, 1024);
    let digest = sha2::Sha256::digest(device.to_vec());
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "e6f577f099f3ea8e70aa9e2de7f11a64cd08bde4c4a45b83e3a65751f5a9c9b3"
    );
}

#[test]
fn files_of_all_sizes_are_read_back_encrypted_or_not() {
    for sector in SECTORS {
        for protection in [Protection::Plain, Protection::Encrypted] {
            let (device, mut store) = new_store(sector, 2048);
            if protection == Protection::Encrypted {
                store.encrypt(&key(1)).unwrap();
            }
            let sizes = [0, 1, 511, 512, 4095, 4096, 4097, 131_071, 131_073, 1 << 20];
            for (i, size) in sizes.into_iter().enumerate() {
                let id = FileId(20 + i as u32);
                store.write(id, protection, &pattern(size)).unwrap();
            }
            let mut store = open(&device);
            if protection == Protection::Encrypted {
                assert!(matches!(store.read(FileId(23)), Err(Error::Locked)));
                assert!(matches!(store.unlock(&key(2)), Err(Error::WrongKey)));
                store.unlock(&key(1)).unwrap();
            }
            for (i, size) in sizes.into_iter().enumerate() {
                let id = FileId(20 + i as u32);
                assert_eq!(store.read(id).unwrap(), pattern(size), "{sector} {size}");
                let mut streamed = Vec::new();
                store.read_to(id, &mut streamed).unwrap();
                assert_eq!(streamed, pattern(size));
                let stored = store.read_stored(id).unwrap();
                assert_eq!(
                    stored == pattern(size),
                    protection == Protection::Plain || size == 0
                );
            }
            assert_eq!(store.findings(), []);
            assert_eq!(store.verify(|_, _| ()), []);
        }
    }
}

#[test]
fn ranges_are_read_at_any_offset() {
    for encrypt in [false, true] {
        let (_, mut store) = new_store(4096, 256);
        if encrypt {
            store.encrypt(&key(1)).unwrap();
        }
        let content = pattern(300_001);
        store.write(ID, Protection::IfEncrypted, &content).unwrap();
        for offset in [
            0, 1, 511, 4096, 131_071, 131_072, 200_003, 299_999, 300_001, 400_000,
        ] {
            for len in [0, 1, 17, 4096, 140_000] {
                let mut buf = vec![0; len];
                let n = store.read_range(ID, offset, &mut buf).unwrap();
                let start = (offset as usize).min(content.len());
                let expected = &content[start..content.len().min(start + len)];
                assert_eq!(&buf[..n], expected, "{offset} {len}");
            }
        }
    }
}

#[test]
fn streams_are_written_in_pieces() {
    for encrypt in [false, true] {
        let (device, mut store) = new_store(512, 4096);
        if encrypt {
            store.encrypt(&key(1)).unwrap();
        }
        let content = pattern(6 << 20);
        store
            .write_from(
                ID,
                Protection::IfEncrypted,
                content.len() as u64,
                &mut &content[..],
            )
            .unwrap();
        assert_eq!(store.read(ID).unwrap(), content);
        let free = store.free_size();

        // A source that ends early changes nothing.
        let error = store
            .write_from(ID, Protection::IfEncrypted, 1 << 20, &mut &content[..1000])
            .unwrap_err();
        assert!(matches!(error, Error::Source { .. }), "{error:?}");
        assert_eq!(store.read(ID).unwrap(), content);
        let mut store = open(&device);
        if encrypt {
            store.unlock(&key(1)).unwrap();
        }
        assert_eq!(store.read(ID).unwrap(), content);
        assert_eq!(store.free_size(), free);
    }
}

#[test]
fn a_commit_changes_several_files_or_none() {
    let (device, mut store) = new_store(512, 64);
    store.write(FileId(1), Protection::Plain, b"one").unwrap();
    store.write(FileId(2), Protection::Plain, b"two").unwrap();
    let (_, sequence) = store.active_header();
    let mut source = &b"a stream"[..];
    store
        .commit(
            Commit::new()
                .write(FileId(1), Protection::Plain, b"uno")
                .write_from(FileId(3), Protection::Plain, 8, &mut source)
                .delete(FileId(2))
                .delete_if_present(FileId(9)),
        )
        .unwrap();
    assert_eq!(store.active_header().1, sequence + 1);
    let mut store = open(&device);
    assert_eq!(store.read(FileId(1)).unwrap(), b"uno");
    assert_eq!(store.read(FileId(3)).unwrap(), b"a stream");
    assert!(matches!(
        store.read(FileId(2)),
        Err(Error::NotAllocated(FileId(2)))
    ));

    let failing = [
        Commit::new()
            .write(FileId(1), Protection::Plain, b"x")
            .delete(FileId(2)),
        Commit::new()
            .write(FileId(1), Protection::Plain, b"x")
            .delete(FileId(1)),
        Commit::new()
            .write(FileId(1), Protection::Plain, b"x")
            .write(FileId(0), Protection::Plain, b"x"),
        Commit::new()
            .write(FileId(1), Protection::Plain, b"x")
            .write(FileId(64), Protection::Plain, b"x"),
        Commit::new()
            .write(FileId(1), Protection::Plain, b"x")
            .write(FileId(5), Protection::Encrypted, b"x"),
    ];
    for commit in failing {
        store.commit(commit).unwrap_err();
        assert_eq!(store.read(FileId(1)).unwrap(), b"uno");
    }
    // A commit of nothing writes nothing.
    store
        .commit(Commit::new().delete_if_present(FileId(9)))
        .unwrap();
    assert_eq!(store.active_header().1, sequence + 1);
}

#[test]
fn ids_outside_the_files_are_refused_everywhere() {
    let (_, mut store) = new_store(512, 64);
    for id in [0, 63, 64, u32::MAX].map(FileId) {
        assert!(matches!(store.read(id), Err(Error::InvalidFileId(_))));
        assert!(matches!(
            store.write(id, Protection::Plain, b""),
            Err(Error::InvalidFileId(_))
        ));
        assert!(matches!(store.delete(id), Err(Error::InvalidFileId(_))));
        assert!(matches!(
            store.move_file(id, ID, Overwrite::Allow),
            Err(Error::InvalidFileId(_))
        ));
        assert!(matches!(
            store.move_file(ID, id, Overwrite::Allow),
            Err(Error::InvalidFileId(_))
        ));
    }
    assert_eq!(store.file_info(FileId(0)).unwrap().valid_bytes, 4096);
    assert_eq!(store.file_info(FileId(63)).unwrap().valid_bytes, 4096);
}

#[test]
fn moves_keep_content_and_key() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    store.write(ID, Protection::Encrypted, b"secret").unwrap();
    store
        .write(FileId(21), Protection::Plain, b"other")
        .unwrap();
    assert!(matches!(
        store.move_file(ID, FileId(21), Overwrite::Refuse),
        Err(Error::DestinationExists(_))
    ));
    store.move_file(ID, FileId(21), Overwrite::Allow).unwrap();
    assert!(matches!(
        store.move_file(ID, FileId(22), Overwrite::Allow),
        Err(Error::NotAllocated(_))
    ));
    let mut store = open(&device);
    assert!(matches!(
        store.move_file(FileId(21), FileId(22), Overwrite::Refuse),
        Err(Error::Locked)
    ));
    // Files that are not encrypted can be moved over each other nevertheless.
    let [first, second] = [FileId(23), FileId(24)];
    for id in [first, second] {
        store.write(id, Protection::Plain, b"plain").unwrap();
    }
    store.move_file(first, second, Overwrite::Allow).unwrap();
    assert!(matches!(
        store.move_file(second, FileId(21), Overwrite::Allow),
        Err(Error::Locked)
    ));
    store.unlock(&key(1)).unwrap();
    assert_eq!(store.read(FileId(21)).unwrap(), b"secret");
    store
        .move_file(second, FileId(21), Overwrite::Allow)
        .unwrap();
    assert_eq!(store.read(FileId(21)).unwrap(), b"plain");
}

#[test]
fn a_store_says_what_is_where_and_what_is_free() {
    const BLOCK: u64 = 4096;
    let (_, mut store) = new_store(512, 20);
    let [first, second, third] = [FileId(20), FileId(21), FileId(22)];
    for (id, blocks) in [(first, 3), (second, 2), (third, 1)] {
        store
            .write(id, Protection::Plain, &vec![1; blocks * BLOCK as usize])
            .unwrap();
    }
    assert!(store.is_allocated(second) && !store.is_allocated(FileId(23)));
    let info = store.file_info(second).unwrap();
    assert_eq!(
        (info.allocated_bytes, info.valid_bytes),
        (2 * BLOCK, 2 * BLOCK)
    );
    store.delete(second).unwrap();
    assert!(!store.is_allocated(second));
    // Of 20 blocks two are headers, two are tables, and four are files.
    assert_eq!(store.free_size(), 12 * BLOCK);
    let mut used = vec![(0, 2)];
    let tables = [FileId::FILE_TABLE, FileId::EXTENDED_FILE_TABLE];
    for id in tables.into_iter().chain([first, third]) {
        used.push(store.file_location(id).unwrap());
    }
    used.push((20, 0));
    used.sort_unstable();
    let gaps = used
        .windows(2)
        .map(|pair| pair[1].0 - (pair[0].0 + pair[0].1));
    let largest = gaps.max().unwrap();
    assert!(u64::from(largest) * BLOCK < store.free_size());
    assert_eq!(store.largest_gap(), u64::from(largest) * BLOCK);
}

#[test]
fn a_key_encrypts_no_longer_file_than_its_counter_allows() {
    let (_, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    // NIST SP 800-38D: 2^39 - 256 bits.
    let most = (1 << 36) - 32;
    let mut write = |len| store.write_from(ID, Protection::Encrypted, len, &mut std::io::empty());
    assert!(matches!(write(most), Err(Error::NoSpace { .. })));
    assert!(matches!(write(most + 1), Err(Error::FileTooLarge { .. })));
}

#[test]
fn small_commits_cost_three_writes_and_two_flushes() {
    for sector in SECTORS {
        for encrypt in [false, true] {
            let device = RecordingDevice::new(sector, vec![0; 1 << 20]);
            let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
            if encrypt {
                store.encrypt(&key(1)).unwrap();
            }
            for round in 0..20u64 {
                device.restart();
                store
                    .write(FileId(14), Protection::IfEncrypted, &round.to_le_bytes())
                    .unwrap();
                let (writes, flushes) = device.counts();
                assert!(
                    writes <= 3 && flushes <= 2,
                    "{writes} writes, {flushes} flushes"
                );
            }
            // A store that was just opened also has its header written again.
            let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
            device.restart();
            store
                .write(FileId(15), Protection::Plain, b"12345678")
                .unwrap();
            let (writes, flushes) = device.counts();
            assert!(
                writes <= 4 && flushes <= 2,
                "{writes} writes, {flushes} flushes"
            );
        }
    }
}

#[test]
fn an_image_and_a_token_go_in_one_commit_with_two_flushes() {
    let device = RecordingDevice::new(512, vec![0; 32 << 20]);
    let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    let image = pattern(6 << 20);
    for _ in 0..3 {
        device.restart();
        store
            .commit(
                Commit::new()
                    .write(FileId::HIBERNATION_FIRMWARE, Protection::Plain, &image)
                    .write(FileId::HIBERNATION_TOKEN, Protection::Plain, &[0xff; 8]),
            )
            .unwrap();
        assert!(device.counts().1 <= 4);
    }
    assert_eq!(device.counts().1, 2);
}

#[test]
fn the_smallest_stores_are_usable() {
    // Six blocks have space for one file, seven for rewriting it; encryption needs one more.
    let (_, mut store) = new_store(512, 6);
    store.write(ID, Protection::Plain, b"x").unwrap();
    assert!(matches!(
        store.write(ID, Protection::Plain, b"y"),
        Err(Error::NoSpace { .. })
    ));
    store.delete(ID).unwrap();
    let (_, mut store) = new_store(512, 7);
    for _ in 0..5 {
        store.write(ID, Protection::Plain, b"x").unwrap();
    }
    let (_, mut store) = new_store(512, 6);
    store.encrypt(&key(1)).unwrap();
    let (_, mut store) = new_store(512, 7);
    store.encrypt(&key(1)).unwrap();
    store.write(ID, Protection::Encrypted, b"x").unwrap();
    assert_eq!(store.read(ID).unwrap(), b"x");
    assert!(matches!(
        Vmgs::format(
            Box::new(MemoryDevice::new(512, 3 * 4096)),
            OpenOptions::default()
        ),
        Err(Error::NoSpace { .. })
    ));
}

#[test]
fn files_can_be_deleted_from_a_full_store() {
    for encrypt in [false, true] {
        let (device, mut store) = new_store(512, 32);
        if encrypt {
            store.encrypt(&key(1)).unwrap();
        }
        let mut ids = Vec::new();
        for id in 1..63 {
            match store.write(FileId(id), Protection::IfEncrypted, b"content") {
                Ok(()) => ids.push(FileId(id)),
                Err(Error::NoSpace { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(ids.len() >= 24, "{}", ids.len());
        let mut store = open(&device);
        if encrypt {
            store.unlock(&key(1)).unwrap();
        }
        for id in ids {
            store.delete(id).unwrap();
        }
        // All blocks except for headers and tables.
        assert_eq!(store.free_size(), 28 * 4096);
    }
}
