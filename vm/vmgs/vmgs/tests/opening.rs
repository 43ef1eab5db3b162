//! Opening, formatting, growing, saving and restoring stores.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::*;
use std::os::unix::fs::FileExt as _;
use vmgs::*;

#[test]
fn each_policy_formats_only_what_it_allows() {
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

    // Stores of unsupported versions, and devices that fail, keep their content.
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
fn a_device_with_data_is_not_formatted_as_an_empty_one() {
    let policy = OpenPolicy {
        on_empty: OnProblem::Format,
        on_corrupt: OnProblem::Fail,
    };
    let open_with = |device: &MemoryDevice| {
        Vmgs::open_or_format(Box::new(device.clone()), OpenOptions::default(), policy)
    };
    // The superblock of ext4 is behind two empty sectors.
    for offset in [1024, 8191, 8192, 12287, 12288, 16383, 16384, (1 << 20) - 1] {
        let device = MemoryDevice::new(512, 1 << 20);
        device.with(|bytes| bytes[offset] = 0x53);
        let before = device.to_vec();
        let error = open_with(&device).err().unwrap();
        assert!(
            matches!(error, Error::NotBlank { offset: at } if at == offset as u64),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(device.to_vec(), before);
    }

    // A store that lost both headers.
    let (device, mut store) = new_store(512, 64);
    store.write(ID, Protection::Plain, b"kept").unwrap();
    device.with(|bytes| bytes[..1024].fill(0));
    assert!(matches!(
        open_with(&device).err().unwrap(),
        Error::NotBlank { .. }
    ));

    // A device whose formatting was interrupted before the header was written.
    let (device, _) = new_store(512, 64);
    device.with(|bytes| bytes[..1024].fill(0));
    assert!(open_with(&device).unwrap().provisioned().is_some());
}

#[test]
fn a_large_file_with_holes_is_searched_to_its_end() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let len = (3 << 30) + 4096;
    file.as_file().set_len(len).unwrap();
    let open = || {
        let access = StoreAccess::ReadWrite;
        let device = FileDevice::open(file.path(), Container::Detect, access).unwrap();
        let policy = OpenPolicy {
            on_empty: OnProblem::Format,
            on_corrupt: OnProblem::Fail,
        };
        Vmgs::open_or_format(Box::new(device), OpenOptions::default(), policy)
    };
    for offset in [(2 << 30) + 5, len - 600] {
        file.as_file().write_all_at(b"data", offset).unwrap();
        let error = open().err().unwrap();
        assert!(
            matches!(error, Error::NotBlank { offset: at } if at == offset),
            "{error}"
        );
        file.as_file().write_all_at(&[0; 4], offset).unwrap();
    }
    assert!(open().unwrap().provisioned().is_some());
}

#[test]
fn format_once_formats_once() {
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
    // Opening the store read-only changes nothing; opening it for writing clears the marker.
    let before = device.to_vec();
    let options = OpenOptions {
        access: StoreAccess::ReadOnly,
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
fn a_damaged_header_is_reported_and_the_other_used() {
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
fn the_previous_generation_is_kept_while_there_is_space() {
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
fn a_newer_header_for_another_sector_size_is_an_error() {
    let (device, mut store) = new_store(512, 64);
    store.write(ID, Protection::Plain, b"1").unwrap();
    // With 512-byte sectors, the second header is active; with 4096-byte sectors, only the first is found.
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
    // The content is intact, and no policy formats it.
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    // With the first header active, the store can be used, and reports the other header.
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

/// Headers that an earlier use of the disk left at the place for disks with 4096-byte sectors.
#[test]
fn a_left_over_header_does_not_stop_the_store_from_being_opened() {
    for (writes, left_sequence) in [(1, 9), (2, 9), (5, 6), (5, 7), (0, 9)] {
        let (device, mut store) = new_store(512, 64);
        for n in 0..writes {
            store.write(ID, Protection::Plain, &[n]).unwrap();
        }
        let active = store.active_header();
        device.with(|bytes| {
            let mut header = bytes[..168].to_vec();
            header[16..20].copy_from_slice(&u32::to_le_bytes(left_sequence));
            let sum = vmgs_format::Header::checksum_of(&header);
            header[12..16].fill(0);
            let sum_of_zeroed = vmgs_format::Header::checksum_of(&header);
            assert_eq!(sum, sum_of_zeroed);
            header[12..16].copy_from_slice(&sum.to_le_bytes());
            bytes[4096..4096 + 168].copy_from_slice(&header);
        });
        let mut store = open(&device);
        assert_eq!(store.active_header(), active);
        let expected = [Finding::ForeignHeader { sector_size: 4096 }];
        assert_eq!(store.findings(), expected);
        store.write(ID, Protection::Plain, b"more").unwrap();
        assert_eq!(open(&device).read(ID).unwrap(), b"more");
    }
}

#[test]
fn a_store_grows_with_its_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small.vmgs");
    let file = std::fs::File::create_new(&path).unwrap();
    create_file(&file, 4 << 20, Container::Vhd1, None).unwrap();
    let device =
        || Box::new(FileDevice::open(&path, Container::Vhd1, StoreAccess::ReadWrite).unwrap());
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
