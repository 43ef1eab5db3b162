//! Space that is reserved, and host disks that are full.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::*;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::Mutex;
use vmgs::*;

const TOKEN: FileId = FileId::HIBERNATION_TOKEN;

/// Fills the store with files of these numbers of blocks, in turn, and returns why no more fit.
fn fill(store: &mut Vmgs, sizes: &[usize]) -> Error {
    let ids = (1..63).map(FileId).filter(|id| *id != TOKEN);
    for (id, blocks) in ids.zip(sizes.iter().cycle()) {
        let content = pattern(blocks * 4096);
        if let Err(error) = store.write(id, Protection::IfEncrypted, &content) {
            return error;
        }
    }
    panic!("the store is too large for this test");
}

#[test]
fn reserved_blocks_cannot_be_taken_and_the_token_always_fits() {
    for encrypt in [false, true] {
        for sizes in [&[1][..], &[2, 1], &[3, 1, 1]] {
            let (device, mut store) = new_store(512, 40);
            if encrypt {
                store.encrypt(&key(1)).unwrap();
            }
            store.reserve(TOKEN, 8).unwrap();
            // Without larger files at first: what is left are single blocks.
            let reserved = if encrypt { 4 * 4096 } else { 3 * 4096 };
            let mut error = fill(&mut store, sizes);
            if sizes.len() > 1 {
                // The last blocks can be had by smaller files only.
                let id = FileId(62);
                for n in 0..8 {
                    if let Err(found) = store.write(FileId(id.0 - n), Protection::IfEncrypted, b"x")
                    {
                        error = found;
                        break;
                    }
                }
            }
            assert!(
                matches!(error, Error::Reserved { reserved: found, .. } if found == reserved),
                "{error}"
            );
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            assert_eq!(store.free_size(), reserved);
            // Replacing a file would need a block as well.
            let replaced = store.write(FileId(1), Protection::IfEncrypted, b"y");
            assert!(replaced.is_ok(), "{replaced:?}");
            for round in 0..3 {
                store
                    .write(TOKEN, Protection::IfEncrypted, &[round; 8])
                    .unwrap();
            }
            let mut store = open(&device);
            if encrypt {
                store.unlock(&key(1)).unwrap();
            }
            assert_eq!(store.read(TOKEN).unwrap(), [2; 8]);
            // The token can go, too, and without a reservation its block is free.
            store.delete(TOKEN).unwrap();
            store
                .write(FileId(50), Protection::IfEncrypted, b"z")
                .unwrap();
        }
    }
}

#[test]
fn what_is_not_there_cannot_be_reserved() {
    let (_, mut store) = new_store(512, 8);
    assert!(matches!(
        store.reserve(TOKEN, 8 * 4096),
        Err(Error::NoSpace {
            id: TOKEN,
            blocks: 8
        })
    ));
    // Four blocks are free: for the file, its successor, and a table.
    store.reserve(TOKEN, 4096).unwrap();
    assert!(matches!(
        store.reserve(FileId(63), 8),
        Err(Error::InvalidFileId(_))
    ));
}

#[test]
fn what_cannot_be_reserved_refuses_neither_the_token_nor_what_takes_no_blocks() {
    let (_, mut store) = new_store(512, 8);
    for id in [21, 22] {
        store.write(FileId(id), Protection::Plain, b"x").unwrap();
    }
    // For the token and a table, but not for the token's successor.
    assert_eq!(store.free_size(), 2 * 4096);
    let reserved = store.reserve(TOKEN, 8);
    assert!(
        matches!(reserved, Err(Error::NoSpace { .. })),
        "{reserved:?}"
    );
    store.write(FileId(22), Protection::Plain, b"y").unwrap();
    let added = store.write(FileId(23), Protection::Plain, b"z");
    assert!(matches!(added, Err(Error::Reserved { .. })), "{added:?}");
    store.write(TOKEN, Protection::Plain, &[1; 8]).unwrap();
    assert_eq!(store.read(TOKEN).unwrap(), [1; 8]);
}

/// A disk in a sparse file on a file system with so many free blocks.
#[derive(Clone)]
struct Sparse {
    disk: MemoryDevice,
    present: Arc<Mutex<BTreeSet<u64>>>,
    free: Arc<Mutex<usize>>,
    error: io::ErrorKind,
}

impl Sparse {
    fn new(blocks: usize, free: usize, error: io::ErrorKind) -> Self {
        Self {
            disk: MemoryDevice::new(512, blocks * 4096),
            present: Arc::default(),
            free: Arc::new(Mutex::new(free)),
            error,
        }
    }

    fn take(&self, blocks: impl Iterator<Item = u64>) -> io::Result<()> {
        for block in blocks {
            let mut free = self.free.lock().unwrap();
            if self.present.lock().unwrap().insert(block) {
                *free = free.checked_sub(1).ok_or(self.error)?;
            }
        }
        Ok(())
    }
}

impl BlockDevice for Sparse {
    fn sector_size(&self) -> u32 {
        512
    }
    fn sector_count(&self) -> u64 {
        self.disk.sector_count()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.take(offset / 4096..=(offset + buf.len() as u64 - 1) / 4096)?;
        self.disk.write_at(offset, buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&mut self) -> io::Result<()> {
        self.take(0..self.sector_count() / 8)
    }
    fn path(&self) -> Option<&std::path::Path> {
        Some(std::path::Path::new("/vms/vm.vmgs"))
    }
}

#[test]
fn what_is_reserved_does_not_meet_a_full_disk() {
    for reserve in [false, true] {
        let device = Sparse::new(64, 64, io::ErrorKind::StorageFull);
        let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        if reserve {
            store.reserve(TOKEN, 8).unwrap();
        }
        // Something else fills the disk.
        *device.free.lock().unwrap() = 0;
        let written = store.write(TOKEN, Protection::Plain, &[1; 8]);
        assert_eq!(written.is_ok(), reserve, "{written:?}");
    }
}

#[test]
fn a_full_disk_is_told_as_such() {
    for error in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        let device = Sparse::new(64, 4, error);
        let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        let failures = [
            store.reserve(TOKEN, 8).unwrap_err(),
            store
                .write(TOKEN, Protection::Plain, &pattern(9000))
                .unwrap_err(),
        ];
        for (error, needed) in failures.iter().zip([64 * 4096, 8192]) {
            assert_eq!(error.kind(), ErrorKind::DiskFull);
            assert_eq!(
                error.to_string(),
                format!(
                    "the host's disk is full: it has no {needed} bytes for the VMGS store in /vms/vm.vmgs"
                )
            );
        }
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_told_as_such() {
    let device = Sparse::new(64, 4, io::ErrorKind::FileTooLarge);
    let mut store = Vmgs::format(Box::new(device), OpenOptions::default()).unwrap();
    let error = store.write(TOKEN, Protection::Plain, b"x").unwrap_err();
    assert!(matches!(error, Error::FileSizeLimit { len: 4096, .. }));
    assert!(error.to_string().contains("/vms/vm.vmgs"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Io);
}

fn file_device(path: &std::path::Path, size: u64) -> FileDevice {
    let file = std::fs::File::create_new(path).unwrap();
    create_file(&file, size, Container::Vhd1, None).unwrap();
    FileDevice::open(path, Container::Vhd1, StoreAccess::ReadWrite).unwrap()
}

#[test]
fn reserving_allocates_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.vmgs");
    let device = Box::new(file_device(&path, 16 << 20));
    let mut store = Vmgs::format(device, OpenOptions::default()).unwrap();
    store.write(ID, Protection::Plain, &pattern(9000)).unwrap();
    let allocated = || std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(allocated() < 1 << 20);
    store.reserve(TOKEN, 8).unwrap();
    assert!(allocated() >= 16 << 20);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), (16 << 20) + 512);
    assert_eq!(store.read(ID).unwrap(), pattern(9000));
}

#[test]
fn what_the_disk_does_not_have_is_not_allocated_in_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.vmgs");
    let host = rustix::fs::statvfs(dir.path()).unwrap();
    let size = (host.f_bavail * host.f_frsize).next_multiple_of(1 << 20) + (1 << 30);
    let device = Box::new(file_device(&path, size));
    let mut store = Vmgs::format(device, OpenOptions::default()).unwrap();
    let error = store.reserve(TOKEN, 8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull);
    assert!(error.to_string().contains("vm.vmgs"), "{error}");
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
}
