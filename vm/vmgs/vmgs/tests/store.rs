//! What a store does, through its interface.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use vmgs::recording::RecordingDevice;
use vmgs::*;

const SECTORS: [u32; 2] = [512, 4096];
const ID: FileId = FileId(20);

fn key(n: u8) -> Key {
    Key::new([n; 32])
}

fn new_store(sector: u32, blocks: usize) -> (MemoryDevice, Vmgs) {
    let device = MemoryDevice::new(sector, blocks * 4096);
    let store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    (device, store)
}

fn open(device: &MemoryDevice) -> Vmgs {
    Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn a_fresh_default_store_is_the_one_everybody_makes() {
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
fn files_of_all_sizes_come_back_in_both_forms() {
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
fn streams_are_written_without_a_copy_of_the_whole() {
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
    store.unlock(&key(1)).unwrap();
    assert_eq!(store.read(FileId(21)).unwrap(), b"secret");
}

#[test]
fn plain_content_does_not_silently_replace_encrypted() {
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
    // An id that never was encrypted can be written while the store is locked.
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
    // The condition lasts over other commits and reopening.
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
fn a_file_deleted_while_locked_leaves_the_extended_table_at_the_next_commit() {
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
fn keys_can_be_replaced_added_and_removed() {
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
    // Both keys survive commits with either of them.
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
    store.remove_other_key().unwrap();
    assert_eq!(store.key_count(), 1);
    assert!(matches!(opens(&key(2)), Err(Error::WrongKey)));
    opens(&key(3)).unwrap();
    assert!(matches!(store.update_key(&key(0)), Err(Error::ZeroKey)));
    assert!(matches!(
        store.decrypt(),
        Err(Error::EncryptedFilesRemain(ID))
    ));
    store.delete(FileId(21)).unwrap();
    store
        .write(ID, Protection::PlainOverEncrypted, b"secret")
        .unwrap();
    store.decrypt().unwrap();
    let mut store = open(&device);
    assert!(!store.is_encrypted());
    assert_eq!(store.read(ID).unwrap(), b"secret");
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
fn rekey_replaces_all_keys_and_wipes_what_is_free() {
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
            // A store that was just opened does as well.
            let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
            device.restart();
            store
                .write(FileId(15), Protection::Plain, b"12345678")
                .unwrap();
            let (writes, flushes) = device.counts();
            assert!(
                writes <= 3 && flushes <= 2,
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
fn the_smallest_stores_hold_what_they_can() {
    // Six blocks hold one file, seven let it be rewritten; encryption takes one more.
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
fn a_full_store_can_still_be_emptied() {
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
        // All but headers and tables.
        assert_eq!(store.free_size(), 28 * 4096);
    }
}

#[test]
fn each_policy_formats_when_it_should() {
    let formatting = OpenPolicy {
        on_empty: OnProblem::Format,
        on_corrupt: OnProblem::Fail,
    };
    let reformatting = OpenPolicy {
        on_empty: OnProblem::Format,
        on_corrupt: OnProblem::Format,
    };
    let only_failures = OpenPolicy {
        on_empty: OnProblem::Fail,
        on_corrupt: OnProblem::Format,
    };
    let open_with = |device: &MemoryDevice, policy| {
        Vmgs::open_or_format(Box::new(device.clone()), OpenOptions::default(), policy)
    };
    let empty = || MemoryDevice::new(512, 1 << 20);
    let corrupt = || {
        let (device, _) = new_store(512, 64);
        device.with(|bytes| bytes[20] ^= 1);
        device
    };
    let error = open_with(&empty(), OpenPolicy::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Empty);
    let reason = |store: Result<Vmgs, Error>| store.unwrap().provisioned();
    assert_eq!(
        reason(open_with(&empty(), formatting)),
        Some(ProvisioningReason::Empty)
    );
    assert_eq!(
        reason(open_with(&empty(), reformatting)),
        Some(ProvisioningReason::Empty)
    );
    assert_eq!(
        reason(open_with(&empty(), only_failures)),
        Some(ProvisioningReason::Failure)
    );
    assert_eq!(
        open_with(&corrupt(), formatting).err().unwrap().kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(
        reason(open_with(&corrupt(), reformatting)),
        Some(ProvisioningReason::Failure)
    );

    // Stores of other versions, and devices that fail, keep their content.
    let (newer, _) = new_store(512, 64);
    newer.with(|bytes| {
        bytes[8..12].copy_from_slice(&0x0003_0001u32.to_le_bytes());
        let sum = vmgs_format::Header::checksum_of(&bytes[..168]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    });
    let partitioned = MemoryDevice::new(512, 1 << 20);
    partitioned.with(|bytes| bytes[512..520].copy_from_slice(b"EFI PART"));
    for device in [newer, partitioned] {
        let before = device.to_vec();
        let error = open_with(&device, reformatting).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(device.to_vec(), before);
    }
}

#[test]
fn a_requested_format_happens_once() {
    let (device, mut store) = new_store(512, 64);
    store.write(ID, Protection::Plain, b"old").unwrap();
    let format_once =
        || Vmgs::format_once(Box::new(device.clone()), OpenOptions::default()).unwrap();
    let mut store = format_once();
    assert!(store.provisioned().is_some() && store.is_reprovisioned());
    assert!(!store.is_allocated(ID));
    store.write(ID, Protection::Plain, b"new").unwrap();
    let mut store = format_once();
    assert_eq!(store.provisioned(), None);
    assert_eq!(store.read(ID).unwrap(), b"new");
    // Looking at it changes nothing; opening it normally clears the marker.
    let before = device.to_vec();
    let options = OpenOptions {
        access: Access::ReadOnly,
        ..OpenOptions::default()
    };
    let mut store = Vmgs::open(Box::new(device.clone()), options).unwrap();
    assert!(store.is_reprovisioned());
    assert!(matches!(store.delete(ID), Err(Error::ReadOnly)));
    assert_eq!(device.to_vec(), before);
    assert!(!open(&device).is_reprovisioned());
    assert!(format_once().provisioned().is_some());
}

#[test]
fn a_damaged_header_falls_back_to_the_other_and_says_so() {
    let (device, mut store) = new_store(512, 64);
    store.write(ID, Protection::Plain, b"old").unwrap();
    store.write(ID, Protection::Plain, b"new").unwrap();
    let (slot, _) = store.active_header();
    device.with(|bytes| bytes[slot * 512 + 40] ^= 1);
    let strict = OpenOptions {
        headers: HeaderPolicy::Strict,
        ..OpenOptions::default()
    };
    assert!(matches!(
        Vmgs::open(Box::new(device.clone()), strict),
        Err(Error::DamagedHeader { .. })
    ));
    let mut store = open(&device);
    assert_eq!(store.read(ID).unwrap(), b"old");
    assert!(matches!(
        store.findings(),
        [Finding::DamagedHeader { newer: true, .. }]
    ));
    store.write(ID, Protection::Plain, b"newer").unwrap();
    assert_eq!(open(&device).findings(), []);
}

#[test]
fn the_previous_generation_stays_whole_while_there_is_room() {
    let (device, mut store) = new_store(512, 64);
    for round in 0..10u8 {
        let content = vec![round; 9000];
        store.write(ID, Protection::Plain, &content).unwrap();
        if round > 0 {
            let copy = MemoryDevice::with_bytes(512, device.to_vec());
            let (slot, _) = store.active_header();
            copy.with(|bytes| bytes[slot * 512] ^= 1);
            assert_eq!(open(&copy).read(ID).unwrap(), vec![round - 1; 9000]);
        }
    }
}

#[test]
fn a_store_carried_to_other_sectors_is_not_rolled_back_silently() {
    let (device, mut store) = new_store(512, 64);
    store.write(ID, Protection::Plain, b"1").unwrap();
    // On 512-byte sectors the second header is in force; 4096-byte sectors show the first only.
    let on_4k = MemoryDevice::with_bytes(4096, device.to_vec());
    let error = Vmgs::open(Box::new(on_4k), OpenOptions::default())
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            Error::SectorSizeChanged {
                sector_size: 512,
                sequence: 2
            }
        ),
        "{error}"
    );
    // With the first in force, the store can be used, and says what it found.
    store.write(ID, Protection::Plain, b"2").unwrap();
    let on_4k = MemoryDevice::with_bytes(4096, device.to_vec());
    let mut store = open(&on_4k);
    assert_eq!(store.read(ID).unwrap(), b"2");
    assert!(
        store
            .findings()
            .contains(&Finding::ForeignHeader { sector_size: 512 })
    );
}

#[test]
fn a_store_grows_with_its_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small.vmgs");
    let file = std::fs::File::create_new(&path).unwrap();
    create_file(&file, 4 << 20, Container::Vhd1, None).unwrap();
    let device = || Box::new(FileDevice::open(&path, Container::Vhd1, Access::ReadWrite).unwrap());
    let mut store = Vmgs::format(device(), OpenOptions::default()).unwrap();
    store.write(ID, Protection::Plain, b"kept").unwrap();
    let image = pattern(6 << 20);
    assert!(matches!(
        store.write(FileId(19), Protection::Plain, &image),
        Err(Error::NoSpace { .. })
    ));
    assert!(matches!(
        grow_file(&path, Container::Vhd1, 32 << 20, |_| ()),
        Err(ContainerError::InUse { .. })
    ));
    drop(store);
    let id = device().shape().vhd_id;
    let mut copied = 0;
    grow_file(&path, Container::Detect, 32 << 20, |len| copied += len).unwrap();
    assert_eq!(copied, 4 << 20);
    assert_eq!(device().shape().vhd_id, id);
    let mut store = Vmgs::open(device(), OpenOptions::default()).unwrap();
    assert_eq!(store.device_size(), 32 << 20);
    store.write(FileId(19), Protection::Plain, &image).unwrap();
    store.write(FileId(19), Protection::Plain, &image).unwrap();
    assert_eq!(store.read(ID).unwrap(), b"kept");
    drop(store);
    assert!(matches!(
        grow_file(&path, Container::Detect, 4 << 20, |_| ()),
        Err(ContainerError::InvalidSize { .. })
    ));
}

#[test]
fn saved_state_restores_without_reading() {
    let (device, mut store) = new_store(512, 64);
    store.encrypt(&key(1)).unwrap();
    store.write(ID, Protection::Encrypted, b"secret").unwrap();
    let saved = store.save().unwrap();
    let bytes = minicbor::to_vec(&saved).unwrap();
    drop(store);
    let saved: SavedStore = minicbor::decode(&bytes).unwrap();
    let mut store =
        Vmgs::restore(Box::new(device.clone()), OpenOptions::default(), &saved).unwrap();
    assert_eq!(store.read(ID).unwrap(), b"secret");
    store.write(ID, Protection::Encrypted, b"changed").unwrap();
    let mut store = open(&device);
    store.unlock(&key(1)).unwrap();
    assert_eq!(store.read(ID).unwrap(), b"changed");

    let small = MemoryDevice::new(512, 8192);
    assert!(matches!(
        Vmgs::restore(Box::new(small), OpenOptions::default(), &saved),
        Err(Error::InvalidSavedState(_))
    ));
}

#[test]
fn sequence_numbers_wrap() {
    let (device, store) = new_store(512, 64);
    drop(store);
    device.with(|bytes| {
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        let sum = vmgs_format::Header::checksum_of(&bytes[..168]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    });
    let mut store = open(&device);
    store.write(ID, Protection::Plain, b"x").unwrap();
    assert_eq!(open(&device).active_header(), (1, 0));
}
