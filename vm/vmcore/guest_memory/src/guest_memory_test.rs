use super::*;
use crate::HUGE_PAGE;
use crate::MIN_RAM;
use crate::PageKind;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use vm_memory::Bytes as _;

const GAP: u64 = MemoryLayout::DEFAULT_LOW_MMIO_START;

fn layout(size: u64) -> MemoryLayout {
    MemoryLayout::new(size, GAP, 46).unwrap()
}

fn in_file(path: &Path) -> MemoryBacking {
    MemoryBacking {
        source: MemorySource::File(path.to_owned()),
        ..MemoryBacking::default()
    }
}

fn read(memory: &GuestMemory, gpa: u64) -> u32 {
    memory.map().read_obj(GuestAddress(gpa)).unwrap()
}

fn write(memory: &GuestMemory, gpa: u64, value: u32) {
    memory.map().write_obj(value, GuestAddress(gpa)).unwrap();
}

#[test]
fn anonymous_memory_is_zero_and_writable() {
    let memory = GuestMemory::anonymous(layout(MIN_RAM)).unwrap();
    assert_eq!(read(&memory, MIN_RAM - 4), 0);
    write(&memory, MIN_RAM - 4, 7);
    assert_eq!(read(&memory, MIN_RAM - 4), 7);
    assert!(
        memory
            .map()
            .read_obj::<u32>(GuestAddress(MIN_RAM - 2))
            .is_err()
    );
}

/// What /proc/self/smaps says of the mapping of the first region: the value of the line with this name.
fn smaps(memory: &GuestMemory, name: &str) -> String {
    let region = &memory.regions()[0];
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:x}-", region.as_ptr() as usize);
    let rest = &smaps[smaps.find(&start).unwrap()..];
    let value = rest.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap().trim().to_owned()
}

#[test]
fn preallocated_memory_is_resident() {
    for source in [MemorySource::Anonymous, MemorySource::Shared] {
        let backing = MemoryBacking {
            source,
            prealloc: true,
            ..Default::default()
        };
        let memory = GuestMemory::new(layout(MIN_RAM), &backing).unwrap();
        let rss = smaps(&memory, "Rss:");
        let kib: u64 = rss.strip_suffix(" kB").unwrap().parse().unwrap();
        assert!(kib >= MIN_RAM >> 10, "{kib} KiB");
    }
}

#[test]
fn the_host_is_told_whether_to_use_transparent_huge_pages() {
    // Flags of the mapping: MADV_HUGEPAGE and MADV_NOHUGEPAGE. A host without such pages has neither.
    let host_has_them = Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    for (pages, flag) in [(PageKind::Transparent, "hg"), (PageKind::Small, "nh")] {
        let backing = MemoryBacking {
            pages,
            ..Default::default()
        };
        let memory = GuestMemory::new(layout(MIN_RAM), &backing).unwrap();
        let flags = smaps(&memory, "VmFlags:");
        let has = flags.split_whitespace().any(|word| word == flag);
        assert_eq!(has, host_has_them, "{flags}");
    }
}

#[test]
fn shared_memory_is_seen_through_its_file() {
    // A low gap from 32 MiB on, so that a small VM has two ranges.
    let layout = MemoryLayout::new(MIN_RAM + 8192, MIN_RAM, 46).unwrap();
    let backing = MemoryBacking {
        source: MemorySource::Shared,
        ..Default::default()
    };
    let memory = GuestMemory::new(layout, &backing).unwrap();
    assert_eq!(read(&memory, MIN_RAM - 4), 0);
    write(&memory, (4 << 30) + 4096, 5);
    let file = memory.regions()[1].file_offset().unwrap();
    let mut bytes = [0; 4];
    file.file()
        .read_exact_at(&mut bytes, file.start() + 4096)
        .unwrap();
    assert_eq!(bytes, 5_u32.to_le_bytes());
}

#[test]
fn unaligned_or_missing_huge_pages_are_errors() {
    for (pages, page, text) in [
        (PageKind::Huge2M, HUGE_PAGE, "hugepages-2048kB/nr_hugepages"),
        (
            PageKind::Huge1G,
            1 << 30,
            "hugepages-1048576kB/nr_hugepages",
        ),
    ] {
        let mut backing = MemoryBacking {
            pages,
            ..Default::default()
        };
        match GuestMemory::new(layout((1 << 30) + 4096), &backing) {
            Err(MemoryError::NotHugePages { page: named, .. }) => assert_eq!(named, page),
            other => panic!("{other:?}"),
        }
        // More than any pool has: an error, not a signal later.
        let size = 1 << 44;
        match GuestMemory::new(layout(size), &backing) {
            Err(e @ MemoryError::HugePages { .. }) => assert!(e.to_string().contains(text), "{e}"),
            other => panic!("{other:?}"),
        }
        backing.source = MemorySource::Shared;
        let shared = GuestMemory::new(layout(size), &backing);
        assert!(
            matches!(
                shared,
                Err(MemoryError::HugePages { .. } | MemoryError::Memfd { .. })
            ),
            "{shared:?}"
        );
    }
    assert!(MIN_RAM.is_multiple_of(HUGE_PAGE));
}

#[test]
fn a_new_file_is_private_reserved_and_shared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ram");
    let memory = GuestMemory::new(layout(MIN_RAM), &in_file(&path)).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.len(), MIN_RAM);
    assert!(metadata.blocks() * 512 >= MIN_RAM, "space is reserved");
    write(&memory, 0x1000, 0x1234_5678);
    drop(memory);
    assert_eq!(
        fs::read(&path).unwrap()[0x1000..0x1004],
        0x1234_5678_u32.to_le_bytes()
    );
    // Its content is there again.
    let memory = GuestMemory::new(layout(MIN_RAM), &in_file(&path)).unwrap();
    assert_eq!(read(&memory, 0x1000), 0x1234_5678);
}

#[test]
fn ranges_follow_one_another_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ram");
    // A low gap from 32 MiB on, so that a small VM has two ranges.
    let layout = MemoryLayout::new(MIN_RAM + 8192, MIN_RAM, 46).unwrap();
    let memory = GuestMemory::new(layout, &in_file(&path)).unwrap();
    write(&memory, (4 << 30) + 4096, 5);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, MIN_RAM + 8192);
    assert_eq!(bytes[MIN_RAM as usize + 4096], 5);
}

#[test]
fn two_vms_cannot_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ram");
    let first = GuestMemory::new(layout(MIN_RAM), &in_file(&path)).unwrap();
    let second = GuestMemory::new(layout(MIN_RAM), &in_file(&path));
    assert!(matches!(second, Err(MemoryError::FileInUse { .. })));
    assert!(path.exists(), "the first VM's file stays");
    let copy = first.clone();
    drop(first);
    let second = GuestMemory::new(layout(MIN_RAM), &in_file(&path));
    assert!(matches!(second, Err(MemoryError::FileInUse { .. })));
    drop(copy);
    GuestMemory::new(layout(MIN_RAM), &in_file(&path)).unwrap();
}

#[test]
fn a_file_of_another_size_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ram");
    fs::write(&path, b"somebody's").unwrap();
    match GuestMemory::new(layout(MIN_RAM), &in_file(&path)) {
        Err(MemoryError::FileSize {
            found, expected, ..
        }) => assert_eq!((found, expected), (10, MIN_RAM)),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    fs::write(&path, b"").unwrap();
    GuestMemory::new(layout(MIN_RAM), &in_file(&path)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), MIN_RAM);
}

#[test]
fn paths_that_are_not_regular_files_are_refused() {
    let null = GuestMemory::new(layout(MIN_RAM), &in_file(Path::new("/dev/null")));
    assert!(matches!(null, Err(MemoryError::NotRegular { .. })));
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent/ram");
    assert!(matches!(
        GuestMemory::new(layout(MIN_RAM), &in_file(&absent)),
        Err(MemoryError::File {
            operation: "open",
            ..
        })
    ));
}

/// On a file system of limited size that reserves all or nothing.
#[test]
fn a_full_file_system_is_an_error_and_leaves_nothing() {
    let shm = Path::new("/dev/shm");
    let capacity = rustix::fs::statvfs(shm)
        .map(|s| s.f_blocks * s.f_frsize)
        .unwrap();
    assert_ne!(capacity, 0, "{} must have a limit", shm.display());
    let dir = tempfile::tempdir_in(shm).unwrap();
    let path = dir.path().join("ram");
    let size = (capacity + (1 << 20)).next_multiple_of(4096).max(MIN_RAM);
    let no_space = |result: Result<GuestMemory, MemoryError>| match result {
        Err(MemoryError::File { source, .. }) => {
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        }
        other => panic!("{other:?}"),
    };
    no_space(GuestMemory::new(layout(size), &in_file(&path)));
    assert!(!path.exists());
    fs::write(&path, b"").unwrap();
    no_space(GuestMemory::new(layout(size), &in_file(&path)));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}
