//! Snapshots are written, read back, and refused when they are damaged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use snapshot::Contents;
use snapshot::DamageKind;
use snapshot::DiskRecord;
use snapshot::INDEX_FILE;
use snapshot::MANIFEST_FILE;
use snapshot::MEMORY_FILE;
use snapshot::Manifest;
use snapshot::ManifestError;
use snapshot::ProcessorRecord;
use snapshot::STATE_FILE;
use snapshot::Snapshot;
use snapshot::SnapshotError;
use snapshot::UnitRecord;
use snapshot::VMGS_FILE;
use snapshot::WriteError;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

const STATE: &[u8] = b"the state of the units";

fn memory() -> GuestMemory {
    let gap = MemoryLayout::DEFAULT_LOW_MMIO_START;
    let memory = GuestMemory::anonymous(MemoryLayout::new(MIN_RAM, gap, 46).unwrap()).unwrap();
    for gpa in [0x1000, 0xf_f000, 0x10_0000, MIN_RAM - 0x1000] {
        let page = [gpa as u8 ^ 0x55; 4096];
        memory.map().write_slice(&page, GuestAddress(gpa)).unwrap();
    }
    // Touched, and zero.
    memory
        .map()
        .write_obj(0_u8, GuestAddress(0x80_0000))
        .unwrap();
    memory
}

fn contents(memory: &GuestMemory) -> Contents<'_> {
    Contents {
        product: "test 1",
        machine: serde_json::json!({"memory": "32 MiB"}),
        config: b"config",
        processor: ProcessorRecord::default(),
        disks: vec![DiskRecord {
            device: "disk0".into(),
            path: Some("/disk".into()),
            size: 512,
            sector: 512,
            read_only: false,
            serial: String::new(),
            content: None,
            modified: None,
        }],
        units: vec![UnitRecord {
            name: "vps".into(),
            size: 3,
        }],
        state: STATE,
        memory,
        vmgs: Some(b"store"),
    }
}

fn saved(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("snapshot");
    let memory = memory();
    let mut seen = (0, 0);
    let written = snapshot::write(&path, contents(&memory), &mut |done, total| {
        seen = (done, total);
    });
    let written = written.unwrap();
    assert_eq!((written.memory, written.stored), (MIN_RAM, 4 * 4096));
    assert!(seen.0 == seen.1 && seen.0 >= written.stored, "{seen:?}");
    path
}

/// What opening says.
fn opened(path: &Path) -> Result<(), SnapshotError> {
    Snapshot::open(path).map(drop)
}

/// What opening says, and what verifying says then.
fn verified(path: &Path) -> Result<(), SnapshotError> {
    Snapshot::open(path)?.verify(&mut |_, _| {})
}

#[test]
fn a_snapshot_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    let snapshot = Snapshot::open(&path).unwrap();
    assert_eq!(snapshot.state(), STATE);
    let manifest = snapshot.manifest();
    assert_eq!(manifest.config_bytes().unwrap(), b"config");
    assert_eq!(manifest.memory.size, MIN_RAM);
    assert_eq!(manifest.disks[0].device, "disk0");
    snapshot.verify(&mut |_, _| {}).unwrap();
    let mut page = [0; 4096];
    let ram = fs::File::open(snapshot.memory_path()).unwrap();
    ram.read_exact_at(&mut page, 0x1000).unwrap();
    assert_eq!(page, [0x55; 4096]);
    // Pages of zeros take no space, and nobody else can read the guest's secrets.
    assert!(ram.metadata().unwrap().blocks() * 512 < 1 << 20);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&snapshot.memory_path()), 0o600);
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_of_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    let memory = memory();
    let again = snapshot::write(&path, contents(&memory), &mut |_, _| {});
    assert!(matches!(again, Err(WriteError::Exists { .. })), "{again:?}");
    let nowhere = dir.path().join("missing/snapshot");
    let error = snapshot::write(&nowhere, contents(&memory), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let nameless = snapshot::check_target(Path::new("/"));
    assert!(matches!(nameless, Err(WriteError::Name { .. })));
    // Somebody else takes the name while it is written.
    let taken = dir.path().join("taken");
    let error = snapshot::write(&taken, contents(&memory), &mut |_, _| {
        let _ = fs::create_dir(&taken);
    });
    assert!(matches!(error, Err(WriteError::Exists { .. })), "{error:?}");
    assert_eq!(fs::read_dir(&taken).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Snapshot::open(&dir.path().join("nothing")).unwrap_err();
    assert!(matches!(error, SnapshotError::NoSnapshot { .. }), "{error}");
    for name in [
        MANIFEST_FILE,
        STATE_FILE,
        INDEX_FILE,
        MEMORY_FILE,
        VMGS_FILE,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = saved(dir.path());
        fs::remove_file(path.join(name)).unwrap();
        let error = Snapshot::open(&path).unwrap_err();
        assert!(matches!(error, SnapshotError::Missing { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        // Nor is anything but a file taken for one, and nothing waits for a pipe.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path.join(name),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(Snapshot::open(&path).is_err(), "{name}");
    }
}

#[test]
fn each_changed_byte_and_each_truncation_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    type Check = fn(&Path) -> Result<(), SnapshotError>;
    let files: [(&str, Check); 4] = [
        (MANIFEST_FILE, opened),
        (STATE_FILE, opened),
        (INDEX_FILE, opened),
        (VMGS_FILE, verified),
    ];
    for (name, check) in files {
        let file = path.join(name);
        let good = fs::read(&file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, &bad).unwrap();
            assert!(check(&path).is_err(), "{name}: byte {at}");
        }
        for len in 0..good.len() {
            fs::write(&file, &good[..len]).unwrap();
            assert!(check(&path).is_err(), "{name}: {len} bytes");
        }
        fs::write(&file, [&good[..], b" "].concat()).unwrap();
        assert!(check(&path).is_err(), "{name}: longer");
        fs::write(&file, &good).unwrap();
    }
    verified(&path).unwrap();
}

#[test]
fn damaged_memory_is_found_by_its_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    let file = path.join(MEMORY_FILE);
    let ram = fs::File::options()
        .read(true)
        .write(true)
        .open(&file)
        .unwrap();
    for (offset, chunk) in [(0x1000_u64, 0), (0x10_0010, 1), (0x50_0000, 5)] {
        let mut byte = [0];
        ram.read_exact_at(&mut byte, offset).unwrap();
        ram.write_all_at(&[byte[0] ^ 1], offset).unwrap();
        let error = verified(&path).unwrap_err();
        let SnapshotError::Damaged { kind, .. } = &error else {
            panic!("{error}");
        };
        assert!(
            matches!(kind, DamageKind::Chunk { chunk: found, .. } if *found == chunk),
            "{error}"
        );
        ram.write_all_at(&byte, offset).unwrap();
    }
    // Zeros that are stored are zeros.
    verified(&path).unwrap();
    for offset in [MIN_RAM, MIN_RAM + 20, MIN_RAM + 4095] {
        ram.write_all_at(&[0xee], offset).unwrap();
        assert!(Snapshot::open(&path).is_err(), "{offset}");
        ram.write_all_at(&[0], offset).unwrap();
    }
    ram.set_len(MIN_RAM).unwrap();
    let error = Snapshot::open(&path).unwrap_err();
    assert!(matches!(error, SnapshotError::Length { .. }), "{error}");
}

#[test]
fn files_of_two_snapshots_do_not_go_together() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, other) = (saved(one.path()), saved(other.path()));
    fs::copy(other.join(MEMORY_FILE), one.join(MEMORY_FILE)).unwrap();
    let error = Snapshot::open(&one).unwrap_err();
    let other_snapshot = DamageKind::OtherSnapshot;
    assert!(
        matches!(&error, SnapshotError::Damaged { kind, .. } if *kind == other_snapshot),
        "{error}"
    );
}

/// The manifest after a change, sealed again.
fn changed(path: &Path, change: impl FnOnce(&mut Manifest)) -> SnapshotError {
    let file = path.join(MANIFEST_FILE);
    let good = fs::read(&file).unwrap();
    let mut manifest = Manifest::unseal(&good).unwrap();
    change(&mut manifest);
    fs::write(&file, manifest.seal().unwrap()).unwrap();
    let error = Snapshot::open(path).unwrap_err();
    fs::write(&file, good).unwrap();
    error
}

#[test]
fn what_a_manifest_cannot_say_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    let newer = changed(&path, |manifest| manifest.version = 2);
    assert!(
        matches!(
            newer,
            SnapshotError::Manifest {
                source: ManifestError::Newer { version: 2 },
                ..
            }
        ),
        "{newer}"
    );
    let architecture = changed(&path, |manifest| manifest.architecture = "aarch64".into());
    assert!(
        matches!(
            architecture,
            SnapshotError::Manifest {
                source: ManifestError::OtherArchitecture { .. },
                ..
            }
        ),
        "{architecture}"
    );
    let changes: [&dyn Fn(&mut Manifest); 10] = [
        &|manifest| manifest.format = "other".into(),
        &|manifest| manifest.id = "00".into(),
        &|manifest| manifest.memory.size = !0xfff,
        &|manifest| manifest.memory.chunk_size = 0,
        &|manifest| manifest.memory.chunks = 1,
        &|manifest| manifest.memory.size += 1 << 20,
        &|manifest| manifest.files.push(manifest.files[0].clone()),
        &|manifest| manifest.files[1].size = u64::MAX,
        &|manifest| manifest.files[1].digest = None,
        &|manifest| manifest.files[1].name = "../etc/passwd".into(),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let error = changed(&path, change);
        assert!(
            matches!(error, SnapshotError::Manifest { .. }),
            "{n}: {error}"
        );
    }
}
