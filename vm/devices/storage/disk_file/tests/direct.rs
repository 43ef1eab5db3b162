//! Direct I/O, from memory that is and is not aligned. The files are where cargo builds: a temporary directory may be on a
//! file system without direct I/O.
#![allow(clippy::unwrap_used, reason = "for tests")]

use disk_backend::DiskOperation;
use disk_backend::exercise;
use disk_backend::exercise::Client;
use disk_file::Caching;
use disk_file::Engine;
use disk_file::FileDiskError;
use disk_file::FileOptions;
use proptest::prelude::*;
use std::path::Path;
use tempfile::NamedTempFile;

const SIZE: u64 = 2 << 20;

fn image(size: u64) -> NamedTempFile {
    let file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), content(size)).unwrap();
    file
}

fn content(size: u64) -> Vec<u8> {
    (0..size).map(|i| (i / 512 * 7 + i) as u8).collect()
}

fn options(engine: Engine) -> FileOptions {
    FileOptions {
        engine,
        caching: Caching::Direct,
        // What every file system supports.
        sector: Some(4096),
        ..FileOptions::default()
    }
}

/// Whether this process has the file open with `O_DIRECT`.
fn is_open_direct(path: &Path) -> bool {
    std::fs::read_dir("/proc/self/fd").unwrap().any(|entry| {
        let fd = entry.unwrap();
        let info = Path::new("/proc/self/fdinfo").join(fd.file_name());
        let is_file = std::fs::read_link(fd.path()).is_ok_and(|target| target == path);
        let flags = std::fs::read_to_string(info).unwrap_or_default();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        is_file && flags.is_some_and(|flags| flags & libc::O_DIRECT != 0)
    })
}

#[test]
fn the_file_is_open_for_direct_io() {
    let file = image(SIZE);
    for (caching, direct) in [(Caching::Direct, true), (Caching::PageCache, false)] {
        let options = FileOptions {
            caching,
            ..options(Engine::Auto)
        };
        disk_file::check(file.path(), options).unwrap();
        let _disk = disk_file::open(file.path(), options).unwrap();
        assert_eq!(is_open_direct(file.path()), direct);
    }
}

/// The client's memory is in pieces, most of which direct I/O does not take.
#[test]
fn long_operations_go_through_aligned_memory_in_parts() {
    let file = image(3 << 20);
    for engine in [Engine::Auto, Engine::Threads] {
        let disk = disk_file::open(file.path(), options(engine)).unwrap();
        let mut client = Client::new(disk);
        let len = (5 << 19) + 4096;
        let bytes: Vec<u8> = (0..len).map(|i: u64| (i / 100) as u8).collect();
        client.write(8192, &bytes).unwrap();
        assert!(client.read(8192, len).unwrap() == bytes);
        client.run(DiskOperation::Flush).unwrap();
        let stored = std::fs::read(file.path()).unwrap();
        assert!(stored[8192..][..bytes.len()] == bytes);
        assert!(stored[..8192] == content(3 << 20)[..8192]);
    }
}

fn compare_with_model(engine: Engine, script: &[exercise::Step]) {
    let file = image(SIZE);
    let disk = disk_file::open(file.path(), options(engine)).unwrap();
    // In blocks of 4 KiB.
    let script: Vec<_> = script
        .iter()
        .map(|step| exercise::Step {
            kind: step.kind,
            sector: step.sector * 8,
            sectors: step.sectors * 8,
        })
        .collect();
    exercise::compare(disk, content(SIZE), &script);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn direct_io_behaves_as_the_model(script in exercise::script(SIZE / 8)) {
        for engine in [Engine::Auto, Engine::Threads] {
            compare_with_model(engine, &script);
        }
    }
}

#[test]
fn what_has_no_direct_io_is_refused() {
    let open = |path: &Path, options| match disk_file::open(path, options) {
        Ok(_) => panic!("{} is open", path.display()),
        Err(error) => {
            let checked = disk_file::check(path, options).unwrap_err();
            assert_eq!(checked.to_string(), error.to_string());
            error
        }
    };
    let mut qcow2 = vec![0; 1 << 16];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let file = image(SIZE);
    std::fs::write(file.path(), &qcow2).unwrap();
    let error = open(file.path(), options(Engine::Auto));
    assert!(
        matches!(error, FileDiskError::DirectQcow2 { .. }),
        "{error}"
    );
}
