use super::*;
use crate::LockHolder;
use disk_backend::Buffers;
use disk_backend::Completion;
use disk_backend::DiskError;
use disk_backend::DiskOperation;
use disk_backend::Extent;
use disk_backend::OverlayDisk;
use disk_backend::Space;
use disk_backend::exercise;
use disk_backend::exercise::Client;
use disk_backend::exercise::Step;
use proptest::prelude::*;
use rustix::event::EventfdFlags;
use std::error::Error as _;
use std::fs;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use tempfile::TempDir;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

const SIZE: u64 = 256 << 10;

fn vhd_footer() -> [u8; FOOTER_LEN] {
    let id = uuid::Uuid::from_bytes_le(*b"0123456789abcdef");
    FixedVhd { size: SIZE, id }.footer()
}

fn content(size: u64) -> Vec<u8> {
    (0..size).map(|i| (i / 512 * 7 + i) as u8).collect()
}

/// The engines that this host supports.
fn engines() -> Vec<Engine> {
    match ring::probe() {
        Ok(()) => vec![Engine::IoUring, Engine::Threads],
        Err(_) => vec![Engine::Threads],
    }
}

struct Image {
    dir: TempDir,
    path: PathBuf,
}

impl Image {
    fn new(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        fs::write(&path, bytes).unwrap();
        // Evicted from the page cache, so that the first reads do not find it there.
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        Self { dir, path }
    }

    fn open(&self, access: DiskAccess, engine: Engine) -> Result<Arc<FileDisk>, FileDiskError> {
        let format = Format::Auto;
        let options = FileOptions {
            access,
            format,
            engine,
            ..Default::default()
        };
        FileDisk::open(&self.path, options).map(Arc::new)
    }

    fn open_as(&self, format: Format) -> Result<FileDisk, FileDiskError> {
        let options = FileOptions {
            format,
            ..Default::default()
        };
        FileDisk::open(&self.path, options)
    }
}

fn compare_with_model(engine: Engine, script: &[Step]) {
    let image = Image::new(&content(SIZE));
    let disk = image.open(DiskAccess::ReadWrite, engine).unwrap();
    exercise::compare(disk, content(SIZE), script);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn io_uring_behaves_as_the_model(script in exercise::script(SIZE)) {
        if ring::probe().is_ok() {
            compare_with_model(Engine::IoUring, &script);
        }
    }

    #[test]
    fn threads_behave_as_the_model(script in exercise::script(SIZE)) {
        compare_with_model(Engine::Threads, &script);
    }

    #[test]
    fn an_overlay_on_a_file_behaves_as_the_model(script in exercise::script(SIZE)) {
        for engine in engines() {
            let image = Image::new(&content(SIZE));
            let disk = OverlayDisk::new(image.open(DiskAccess::ReadOnly, engine).unwrap());
            exercise::compare(Arc::new(disk), content(SIZE), &script);
            prop_assert!(fs::read(&image.path).unwrap() == content(SIZE));
        }
    }
}

#[test]
fn the_disk_has_the_properties_of_the_file() {
    let image = Image::new(&content(SIZE));
    let disk = image.open(DiskAccess::ReadWrite, Engine::Auto).unwrap();
    let info = disk.info();
    assert_eq!(info.size(), SIZE);
    assert_eq!(info.name, image.path.display().to_string());
    assert!(info.physical_block >= 512);
    assert!(info.discard_granularity.is_some() && info.id.is_none());
    assert_ne!(disk.engine, Engine::Auto);
    let mut client = Client::new(disk);
    client.write(512, &[9; 512]).unwrap();
    client.run(DiskOperation::Flush).unwrap();
    assert_eq!(fs::read(&image.path).unwrap()[512..1024], [9; 512]);
}

#[test]
fn a_read_only_disk_is_not_changed() {
    for engine in engines() {
        let image = Image::new(&content(SIZE));
        let disk = image.open(DiskAccess::ReadOnly, engine).unwrap();
        let mut client = Client::new(disk);
        let extent = Extent {
            offset: 0,
            len: 512,
        };
        let space = Space::Keep;
        assert!(matches!(
            client.write(0, &[1; 512]),
            Err(DiskError::ReadOnly)
        ));
        assert!(client.run(DiskOperation::Discard { extent }).is_err());
        assert!(
            client
                .run(DiskOperation::WriteZeroes { extent, space })
                .is_err()
        );
        assert!(client.run(DiskOperation::Flush).is_ok());
        assert_eq!(client.read(0, SIZE).unwrap(), content(SIZE));
    }
}

#[test]
fn files_that_are_not_disks_are_refused() {
    let open = |image: &Image| image.open(DiskAccess::ReadWrite, Engine::Auto).map(|_| ());
    let empty = open(&Image::new(b""));
    assert!(matches!(empty, Err(FileDiskError::Empty { .. })));
    let partial = open(&Image::new(&[0; 513]));
    assert!(matches!(
        partial,
        Err(FileDiskError::PartialSector { size: 513, .. })
    ));
    let mut image = Image::new(b"");
    image.path = image.dir.path().join("none");
    let missing = open(&image).unwrap_err();
    assert!(matches!(missing, FileDiskError::Open { .. }));
    assert!(missing.to_string().contains("none"), "{missing}");
    let null = FileDisk::open(Path::new("/dev/null"), FileOptions::default()).map(|_| ());
    assert!(matches!(null, Err(FileDiskError::NotADisk { .. })));
    let mut directory = Image::new(b"");
    directory.path = directory.dir.path().into();
    let result = directory
        .open(DiskAccess::ReadOnly, Engine::Auto)
        .map(|_| ());
    assert!(matches!(result, Err(FileDiskError::NotADisk { .. })));
    // Without a writer, a blocking open would never return.
    let fifo = directory.dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    directory.path = fifo;
    let result = directory
        .open(DiskAccess::ReadOnly, Engine::Auto)
        .map(|_| ());
    assert!(matches!(result, Err(FileDiskError::NotADisk { .. })));
}

#[test]
fn a_fixed_vhd_is_detected_by_its_footer() {
    let mut bytes = content(SIZE);
    bytes.extend(vhd_footer());
    let image = Image::new(&bytes);
    let disk = image.open_as(Format::Auto).unwrap();
    assert_eq!(disk.info().size(), SIZE);
    assert_eq!(disk.info().id.as_ref(), Some(b"0123456789abcdef"));
    // The guest cannot access the footer.
    let mut client = Client::new(Arc::new(disk));
    assert!(client.write(SIZE, &[0; 512]).is_err());
    client.write(SIZE - 512, &[3; 512]).unwrap();
    drop(client);
    assert_eq!(
        fs::read(&image.path).unwrap()[SIZE as usize..],
        vhd_footer()
    );
    let raw = image.open_as(Format::Raw).unwrap();
    assert_eq!(raw.info().size(), SIZE + 512);
}

#[test]
fn other_vhds_are_refused() {
    let mut footer = vhd_footer();
    // The disk type, and the checksum for it.
    footer[63] += 1;
    footer[67] -= 1;
    let dynamic = Image::new(&[&content(SIZE)[..], &footer].concat());
    let Err(error @ FileDiskError::Vhd { .. }) = dynamic.open_as(Format::Auto) else {
        panic!("a dynamic VHD was opened");
    };
    assert!(error.source().unwrap().to_string().contains("dynamic"));
    // A guest may write such a footer to the end of its raw disk.
    assert!(dynamic.open_as(Format::Raw).is_ok());
    let raw = Image::new(&content(SIZE));
    let Err(error) = raw.open_as(Format::Vhd) else {
        panic!("a raw file was opened as a VHD");
    };
    assert!(
        error
            .source()
            .unwrap()
            .to_string()
            .contains("no VHD footer")
    );
    assert!(Image::new(b"").open_as(Format::Vhd).is_err());
}

#[test]
fn a_file_that_shrinks_causes_only_errors() {
    for engine in engines() {
        let image = Image::new(&content(SIZE));
        let disk = image.open(DiskAccess::ReadWrite, engine).unwrap();
        let mut client = Client::new(disk);
        let file = File::options().write(true).open(&image.path).unwrap();
        file.set_len(SIZE / 2).unwrap();
        let error = client.read(SIZE / 2 - 512, 1024).unwrap_err();
        let DiskError::Truncated { offset, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(offset, SIZE / 2);
        assert_eq!(client.read(0, 512).unwrap(), content(512));
        // It still works after the file is unlinked.
        fs::remove_file(&image.path).unwrap();
        client.write(0, &[1; 512]).unwrap();
        assert_eq!(client.read(0, 512).unwrap(), [1; 512]);
    }
}

#[test]
fn a_writable_disk_is_not_shared() {
    let image = Image::new(&content(SIZE));
    let open = |access| image.open(access, Engine::Threads);
    let in_use = |result: Result<Arc<FileDisk>, FileDiskError>| match result {
        Err(FileDiskError::InUse { holder, path }) if path == image.path => holder,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("opened twice"),
    };
    let writer = open(DiskAccess::ReadWrite).unwrap();
    assert_eq!(in_use(open(DiskAccess::ReadWrite)), LockHolder::ThisProcess);
    assert_eq!(in_use(open(DiskAccess::ReadOnly)), LockHolder::ThisProcess);
    drop(writer);
    let reader = open(DiskAccess::ReadOnly).unwrap();
    let another = open(DiskAccess::ReadOnly).unwrap();
    in_use(open(DiskAccess::ReadWrite));
    drop((reader, another));
    open(DiskAccess::ReadWrite).unwrap();
}

#[test]
fn a_queue_keeps_the_lock() {
    let image = Image::new(&content(SIZE));
    for engine in engines() {
        let disk = image.open(DiskAccess::ReadWrite, engine).unwrap();
        let client = Client::new(disk);
        assert!(image.open(DiskAccess::ReadWrite, engine).is_err());
        drop(client);
        // Threads release the file when they have noticed.
        while image.open(DiskAccess::ReadWrite, engine).is_err() {
            std::thread::yield_now();
        }
    }
}

const CHILD_IMAGE: &str = "DISK_FILE_TEST_IMAGE";

/// The child process of the test below; does nothing otherwise.
#[test]
fn child_that_holds_a_disk() {
    let Some(path) = std::env::var_os(CHILD_IMAGE) else {
        return;
    };
    let disk = FileDisk::open(Path::new(&path), FileOptions::default()).unwrap();
    println!("\nlocked");
    // Until the parent closes the pipe.
    io::stdin().read_line(&mut String::new()).unwrap();
    drop(disk);
}

#[test]
fn the_process_that_uses_the_disk_is_named() {
    let image = Image::new(&content(SIZE));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "file_disk::tests::child_that_holds_a_disk"])
        .arg("--nocapture")
        .env(CHILD_IMAGE, &image.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "locked"));
    let Err(error) = image.open(DiskAccess::ReadWrite, Engine::Auto) else {
        panic!("opened while locked");
    };
    let FileDiskError::InUse { holder, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*holder, LockHolder::Process(child.id()));
    let message = error.to_string();
    assert!(message.contains("disk.img") && message.contains(&child.id().to_string()));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    // The lock ends with the process.
    image.open(DiskAccess::ReadWrite, Engine::Auto).unwrap();
}

#[test]
fn events_end_a_wait_and_operations_continue() {
    let image = Image::new(&content(SIZE));
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), SIZE as usize)]).unwrap();
    let memory = Arc::new(memory);
    for engine in engines() {
        let disk = image.open(DiskAccess::ReadWrite, engine).unwrap();
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let mut queue = disk.clone().open_queue(4, &[event.as_fd()]).unwrap();
        let mut completions: Vec<Completion> = Vec::new();
        for round in 1..100u64 {
            rustix::io::write(&event, &round.to_ne_bytes()).unwrap();
            queue.wait(&mut completions).unwrap();
        }
        assert!(completions.is_empty());
        // More than the depth, and dropped with some in flight.
        for token in 0..200 {
            let buffers = Buffers::guest(&memory, [(GuestAddress(token * 512), 512)]).unwrap();
            let offset = token * 512;
            queue.submit(token, DiskOperation::Read { offset, buffers });
        }
        while completions.len() < 100 {
            queue.wait(&mut completions).unwrap();
        }
        drop(queue);
        let mut tokens: Vec<u64> = completions.iter().map(|c| c.token).collect();
        assert!(completions.iter().all(|c| c.result.is_ok()));
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), completions.len());
        // Both engines release the lock.
        drop(disk);
        while Arc::strong_count(&memory) > 1 {
            std::thread::yield_now();
        }
        while image.open(DiskAccess::ReadWrite, engine).is_err() {
            std::thread::yield_now();
        }
    }
}
