//! A guest cannot change the format of its disk, and files that are no disk are refused.
#![allow(clippy::unwrap_used, reason = "for tests")]

use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::DiskError;
use disk_backend::exercise::Client;
use disk_file::Engine;
use disk_file::FileDiskError;
use disk_file::FileOptions;
use disk_file::Format;
use std::path::Path;
use std::sync::Arc;
use vhd_footer::FixedVhd;

const SIZE: u64 = 64 << 10;

fn open(path: &Path, format: Format, engine: Engine) -> Result<Arc<dyn Disk>, FileDiskError> {
    let options = FileOptions {
        format,
        engine,
        ..Default::default()
    };
    let checked = disk_file::check(path, options).map_err(|error| error.to_string());
    let opened = disk_file::open(path, options);
    if let Err(error) = &opened {
        assert_eq!(checked, Err(error.to_string()));
    } else {
        assert_eq!(checked, Ok(()));
    }
    opened
}

fn footer(size: u64) -> [u8; 512] {
    let id = uuid::Uuid::from_bytes_le(*b"0123456789abcdef");
    FixedVhd { size, id }.footer()
}

fn sector(at: usize, bytes: &[u8]) -> [u8; 512] {
    let mut sector = [0; 512];
    sector[at..at + bytes.len()].copy_from_slice(bytes);
    sector
}

/// First sectors that are found to be something.
fn heads() -> Vec<[u8; 512]> {
    vec![
        sector(0, b"QFI\xfb\0\0\0\x03"),
        sector(0, b"QED\0"),
        sector(0, b"vhdxfile"),
        sector(0, b"KDMV"),
        sector(0, b"COWD"),
        sector(0, b"# Disk DescriptorFile"),
        sector(0x40, &0xbeda_107f_u32.to_le_bytes()),
        sector(0, b"WithoutFreeSpace"),
        sector(0, &[0x1f, 0x8b, 8]),
        sector(0, b"\xfd7zXZ\0"),
        sector(0, &[0x28, 0xb5, 0x2f, 0xfd]),
        sector(0, b"BZh91AY&SY"),
        sector(0, b"PK\x03\x04"),
    ]
}

#[test]
fn a_guest_cannot_change_the_format_of_its_raw_disk() {
    for engine in [Engine::Auto, Engine::Threads] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![0; SIZE as usize]).unwrap();
        let disk = open(&path, Format::Auto, engine).unwrap();
        let mut client = Client::new(disk);
        let mut writes: Vec<_> = heads().into_iter().map(|head| (0, head.to_vec())).collect();
        writes.push((0, footer(SIZE - 512).to_vec()));
        writes.push((SIZE - 512, footer(512).to_vec()));
        writes.push((SIZE - 512, sector(0, b"conectix").to_vec()));
        // As a part of a larger write, and both ends at once.
        writes.push((0, [&heads()[0][..], &[1; 4096]].concat()));
        writes.push((SIZE - 4096, [&[1; 3584][..], &footer(512)].concat()));
        let mut all = vec![1; SIZE as usize];
        all[SIZE as usize - 512..].copy_from_slice(&footer(SIZE - 512));
        writes.push((0, all));
        for (offset, bytes) in &writes {
            let result = client.write(*offset, bytes);
            assert!(
                matches!(result, Err(DiskError::ChangesFormat { .. })),
                "{result:?}"
            );
        }
        // Nothing of them was written, and others are not affected.
        assert!(client.read(0, SIZE).unwrap().iter().all(|&byte| byte == 0));
        client.write(512, &heads()[0]).unwrap();
        client.write(SIZE - 1024, &footer(512)).unwrap();
        client.write(0, &sector(0, b"LUKS\xba\xbe\0\x02")).unwrap();
        client.write(SIZE - 512, &sector(1, b"conectix")).unwrap();
        let mut mixed = vec![3; SIZE as usize];
        mixed[100] = 4;
        client.write(0, &mixed).unwrap();
        assert!(client.read(0, SIZE).unwrap() == mixed);
        drop(client);
        // With the format given, the guest may write what it likes.
        for (offset, bytes) in &writes {
            let mut client = Client::new(open(&path, Format::Raw, engine).unwrap());
            client.write(*offset, bytes).unwrap();
            assert!(client.read(*offset, bytes.len() as u64).unwrap() == *bytes);
            drop(client);
            assert_eq!(
                open(&path, Format::Raw, engine).unwrap().info().size(),
                SIZE
            );
            std::fs::write(&path, vec![0; SIZE as usize]).unwrap();
        }
    }
}

#[test]
fn a_disk_of_one_sector_keeps_its_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, [0; 512]).unwrap();
    let mut client = Client::new(open(&path, Format::Auto, Engine::Auto).unwrap());
    for bytes in [heads()[0], footer(0)] {
        let result = client.write(0, &bytes);
        assert!(matches!(result, Err(DiskError::ChangesFormat { .. })));
    }
    client.write(0, &[1; 512]).unwrap();
}

#[test]
fn a_guest_cannot_change_the_format_of_its_vhd() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let mut bytes = vec![0; SIZE as usize];
    bytes.extend(footer(SIZE));
    std::fs::write(&path, &bytes).unwrap();
    let mut client = Client::new(open(&path, Format::Auto, Engine::Auto).unwrap());
    for head in heads() {
        let result = client.write(0, &head);
        assert!(
            matches!(result, Err(DiskError::ChangesFormat { .. })),
            "{result:?}"
        );
    }
    // The footer is behind the disk.
    client.write(SIZE - 512, &footer(512)).unwrap();
    client.write(0, &footer(512)).unwrap();
    drop(client);
    let disk = open(&path, Format::Auto, Engine::Auto).unwrap();
    assert_eq!(disk.info().size(), SIZE);
}

#[test]
fn a_cut_file_does_not_end_with_the_footer_that_its_guest_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![0; SIZE as usize]).unwrap();
    let mut client = Client::new(open(&path, Format::Auto, Engine::Auto).unwrap());
    client.write(SIZE / 2 - 512, &footer(512)).unwrap();
    drop(client);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(SIZE / 2).unwrap();
    let error = open(&path, Format::Auto, Engine::Auto).err().unwrap();
    assert!(
        matches!(error, FileDiskError::UnclearVhd { size: 512, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("format=raw"), "{error}");
    let size = |format| open(&path, format, Engine::Auto).unwrap().info().size();
    assert_eq!(size(Format::Raw), SIZE / 2);
    assert_eq!(size(Format::Vhd), 512);
}

#[test]
fn other_images_and_compressed_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let names = [
        "corrupt",
        "QED",
        "VHDX",
        "VMDK",
        "VMDK",
        "VMDK",
        "VDI",
        "Parallels",
        "gzip",
        "xz",
        "zstd",
        "bzip2",
        "zip",
    ];
    for (head, name) in heads().into_iter().zip(names) {
        let mut bytes = vec![0; SIZE as usize];
        bytes[..512].copy_from_slice(&head);
        std::fs::write(&path, &bytes).unwrap();
        let error = open(&path, Format::Auto, Engine::Auto).err().unwrap();
        let text = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        assert!(text.contains(name), "{name}: {text}");
        let raw = open(&path, Format::Raw, Engine::Auto).unwrap();
        assert_eq!(Client::new(raw).read(0, 512).unwrap(), head);
    }
    // Short files too.
    std::fs::write(&path, b"\xfd7zXZ\0 and more").unwrap();
    let error = open(&path, Format::Auto, Engine::Auto).err().unwrap();
    assert!(error.to_string().contains("compressed (xz)"), "{error}");
    std::fs::write(&path, b"").unwrap();
    assert!(open(&path, Format::Qcow2, Engine::Auto).is_err());
    assert!(open(&path, Format::Auto, Engine::Auto).is_err());
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for path in [&*pipe, dir.path(), Path::new("/dev/null")] {
        for access in [DiskAccess::ReadWrite, DiskAccess::ReadOnly] {
            let options = FileOptions {
                access,
                ..Default::default()
            };
            let opened = disk_file::open(path, options);
            assert!(matches!(opened, Err(FileDiskError::NotADisk { .. })));
            let checked = disk_file::check(path, options);
            assert!(matches!(checked, Err(FileDiskError::NotADisk { .. })));
        }
    }
    let missing = dir.path().join("missing");
    assert!(open(&missing, Format::Auto, Engine::Auto).is_err());
}

#[test]
fn a_missing_file_is_created_and_an_existing_one_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let options = FileOptions {
        create: Some(SIZE),
        ..Default::default()
    };
    disk_file::check(&path, options).unwrap();
    assert!(!path.exists());
    // Whoever opened it did not need it in the end.
    drop(disk_file::open(&path, options).unwrap());
    assert!(!path.exists());
    let disk = disk_file::open(&path, options).unwrap();
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    std::fs::write(&path, b"another").unwrap();
    drop(disk);
    assert_eq!(std::fs::read(&path).unwrap(), b"another");
    std::fs::remove_file(&path).unwrap();
    let disk = disk_file::open(&path, options).unwrap();
    disk.keep();
    let mut client = Client::new(disk);
    client.write(512, &[1; 512]).unwrap();
    drop(client);
    let options = FileOptions {
        create: Some(2 * SIZE),
        ..Default::default()
    };
    disk_file::check(&path, options).unwrap();
    let disk = disk_file::open(&path, options).unwrap();
    assert_eq!(disk.info().size(), SIZE);
    assert_eq!(Client::new(disk).read(512, 512).unwrap(), [1; 512]);
    let nowhere = dir.path().join("missing/disk");
    assert!(disk_file::check(&nowhere, options).is_err());
    let error = disk_file::open(&nowhere, options).err().unwrap();
    assert!(matches!(error, FileDiskError::Create { .. }), "{error}");
}

#[test]
fn sectors_are_what_the_guest_gets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![0; SIZE as usize]).unwrap();
    let with = |sector| FileOptions {
        sector,
        ..Default::default()
    };
    let disk = disk_file::open(&path, with(None)).unwrap();
    assert_eq!(disk.info().logical_block, 512);
    drop(disk);
    let disk = disk_file::open(&path, with(Some(4096))).unwrap();
    let info = disk.info();
    assert_eq!((info.logical_block, info.physical_block), (4096, 4096));
    assert_eq!(info.sectors, SIZE / 512);
    let mut client = Client::new(disk);
    client.write(4096, &[1; 4096]).unwrap();
    for (offset, len) in [(512, 4096), (4096, 512), (0, 4608)] {
        let result = client.write(offset, &vec![2; len]);
        assert!(matches!(
            result,
            Err(DiskError::Unaligned { block: 4096, .. })
        ));
    }
    drop(client);
    std::fs::write(&path, vec![0; 4608]).unwrap();
    let error = disk_file::open(&path, with(Some(4096))).err().unwrap();
    assert!(matches!(error, FileDiskError::BlockSize { .. }), "{error}");
    assert!(disk_file::open(&path, with(Some(1024))).is_err());
}

#[test]
fn a_file_that_was_cut_fails_only_what_is_beyond_its_end() {
    for engine in [Engine::Auto, Engine::Threads] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![7; SIZE as usize]).unwrap();
        let mut client = Client::new(open(&path, Format::Auto, engine).unwrap());
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(SIZE / 2 + 256).unwrap();
        let buffers = |client: &Client, n: u64| client.buffers(n * 8192, 1024);
        let offsets = [0, SIZE / 2 - 512, SIZE / 2, SIZE - 1024, 1024];
        let reads = offsets
            .iter()
            .zip(0..)
            .map(|(offset, n)| disk_backend::DiskOperation::Read {
                offset: *offset,
                buffers: buffers(&client, n),
            });
        let reads = reads.collect();
        let results = client.batch(reads);
        let is_truncated = |result: &Result<(), DiskError>| match result {
            Ok(()) => false,
            Err(DiskError::Truncated { .. }) => true,
            Err(error) => panic!("{error}"),
        };
        let truncated: Vec<_> = results.iter().map(is_truncated).collect();
        assert_eq!(truncated, [false, true, true, true, false]);
        client.write(SIZE - 1024, &[1; 1024]).unwrap();
        assert_eq!(client.read(SIZE - 1024, 1024).unwrap(), [1; 1024]);
    }
}
