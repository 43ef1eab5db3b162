//! qcow2 images: content that is known byte for byte, what is written, and what is refused.
#![allow(clippy::unwrap_used, reason = "for tests")]

use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::DiskError;
use disk_backend::DiskOperation;
use disk_backend::Extent;
use disk_backend::OverlayDisk;
use disk_backend::Space;
use disk_backend::exercise;
use disk_backend::exercise::Client;
use disk_file::FileDiskError;
use disk_file::FileOptions;
use disk_file::Format;
use proptest::prelude::*;
use std::error::Error as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const SIZE: u64 = 256 << 10;
const COPIED: u64 = 1 << 63;

/// An image as its specification describes it, made without the code under test.
struct Image {
    bytes: Vec<u8>,
    cluster: usize,
}

impl Image {
    /// An empty one: cluster 0 is the header, 1 the refcount table, 2 a refcount block and 3 the L1 table. All entries
    /// of the latter fit in one cluster.
    fn new(version: u32, cluster_bits: u32) -> Self {
        let cluster = 1 << cluster_bits;
        let mut image = Self {
            bytes: vec![0; 4 * cluster],
            cluster,
        };
        let entries = SIZE.div_ceil((cluster * cluster / 8) as u64) as u32;
        assert!(8 * entries as usize <= cluster);
        image.put(0, b"QFI\xfb");
        image.put(4, &version.to_be_bytes());
        image.put(20, &cluster_bits.to_be_bytes());
        image.put(24, &SIZE.to_be_bytes());
        image.put(36, &entries.to_be_bytes());
        image.put(40, &(3 * cluster as u64).to_be_bytes());
        image.put(48, &(cluster as u64).to_be_bytes());
        image.put(56, &1u32.to_be_bytes());
        if version == 3 {
            image.put(96, &4u32.to_be_bytes());
            image.put(100, &104u32.to_be_bytes());
        }
        image.put(cluster, &(2 * cluster as u64).to_be_bytes());
        for n in 0..4 {
            image.put(2 * cluster + 2 * n, &1u16.to_be_bytes());
        }
        image
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn get(&self, at: u64) -> u64 {
        let at = at as usize;
        u64::from_be_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    /// Adds a cluster with `content`. Returns its offset.
    fn add(&mut self, content: &[u8]) -> u64 {
        let at = self.bytes.len();
        self.bytes.extend(content);
        self.bytes.resize(at + self.cluster, 0);
        self.put(
            2 * self.cluster + 2 * (at / self.cluster),
            &1u16.to_be_bytes(),
        );
        at as u64
    }

    /// Makes `content` that of the disk's cluster `n`, which is mapped by the first L2 table.
    fn with_cluster(mut self, n: usize, content: &[u8]) -> Self {
        let l1 = 3 * self.cluster;
        if self.get(l1 as u64) == 0 {
            let table = self.add(&[]);
            self.put(l1, &(table | COPIED).to_be_bytes());
        }
        let data = self.add(content);
        let table = (self.get(l1 as u64) & !COPIED) as usize;
        self.put(table + 8 * n, &(data | COPIED).to_be_bytes());
        self
    }

    /// Adds a header extension with the format of the backing file, and the file's name.
    fn with_backing(mut self, name: &str, format: Option<&str>) -> Self {
        let mut at = 104;
        if let Some(format) = format {
            self.put(at, &0xe279_2aca_u32.to_be_bytes());
            self.put(at + 4, &(format.len() as u32).to_be_bytes());
            self.put(at + 8, format.as_bytes());
            at += 8 + format.len().next_multiple_of(8);
        }
        self.put(8, &(at as u64 + 8).to_be_bytes());
        self.put(16, &(name.len() as u32).to_be_bytes());
        self.put(at + 8, name.as_bytes());
        self
    }

    fn with(mut self, at: usize, value: &[u8]) -> Self {
        self.put(at, value);
        self
    }

    /// The content of the disk, by the tables in the image.
    fn content(&self) -> Vec<u8> {
        let cluster = self.cluster as u64;
        let per_table = cluster / 8;
        let clusters = 0..SIZE.div_ceil(cluster);
        let content = clusters.flat_map(|n| {
            let table = self.get(3 * cluster + 8 * (n / per_table)) & 0x00ff_ffff_ffff_fe00;
            let entry = match table {
                0 => 0,
                table => self.get(table + 8 * (n % per_table)),
            };
            assert_eq!(entry & 1 << 62, 0, "compressed");
            match entry & 0x00ff_ffff_ffff_fe00 {
                at if at == 0 || entry & 1 != 0 => vec![0; self.cluster],
                at => {
                    let mut bytes = vec![0; self.cluster];
                    let stored = &self.bytes[at as usize..];
                    let len = stored.len().min(self.cluster);
                    bytes[..len].copy_from_slice(&stored[..len]);
                    bytes
                }
            }
        });
        content.take(SIZE as usize).collect()
    }
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn open(path: &Path) -> Result<Arc<dyn Disk>, FileDiskError> {
    disk_file::open(path, FileOptions::default())
}

fn read_only() -> FileOptions {
    FileOptions {
        access: DiskAccess::ReadOnly,
        ..Default::default()
    }
}

/// Why the disk at `path` cannot be opened, with all causes. Checking it says the same.
fn refused(path: &Path) -> String {
    let chain = |error: FileDiskError| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    };
    let checked = disk_file::check(path, FileOptions::default()).map_err(chain);
    let opened = open(path).map(|_| ()).map_err(chain);
    assert_eq!(checked, opened);
    opened.unwrap_err()
}

#[test]
fn the_content_is_that_of_the_clusters() {
    for (version, bits) in [(2, 16), (3, 12), (3, 16)] {
        let cluster = 1usize << bits;
        let data: Vec<u8> = (0..cluster).map(|i| (i / 7) as u8 | 1).collect();
        let image = Image::new(version, bits).with_cluster(2, &data);
        let files = Files::new();
        let path = files.write("disk.qcow2", &image.bytes);
        let disk = open(&path).unwrap();
        let info = disk.info();
        assert_eq!((info.size(), info.logical_block), (SIZE, 512));
        let granularity = (version == 3).then_some(1 << bits);
        assert_eq!(info.discard_granularity, granularity);
        let mut expected = vec![0; SIZE as usize];
        expected[2 * cluster..3 * cluster].copy_from_slice(&data);
        assert!(Client::new(disk).read(0, SIZE).unwrap() == expected);
    }
}

/// Made by `qemu-img convert -c -O qcow2 -o cluster_size=4096` of QEMU 7.2.
const COMPRESSED: &[u8] = include_bytes!("data/compressed.qcow2");

#[test]
fn an_image_of_qemu_img_with_compressed_clusters_is_read_and_written() {
    let files = Files::new();
    let path = files.write("disk.qcow2", COMPRESSED);
    let byte = |i: u64| (i % 4096 / 100 + i / 4096 * 16) as u8;
    let mut expected: Vec<u8> = (0..16384).map(byte).collect();
    let mut client = Client::new(open(&path).unwrap());
    assert!(client.read(0, 16384).unwrap() == expected);
    client.write(4608, &[1; 512]).unwrap();
    expected[4608..5120].fill(1);
    assert!(client.read(0, 16384).unwrap() == expected);
    client.run(DiskOperation::Flush).unwrap();
    drop(client);
    let mut client = Client::new(open(&path).unwrap());
    assert!(client.read(0, 16384).unwrap() == expected);
}

#[test]
fn what_is_written_is_in_the_image_after_a_flush() {
    let files = Files::new();
    let path = files.write("disk.qcow2", &Image::new(3, 12).bytes);
    let mut expected = vec![0; SIZE as usize];
    let disk = open(&path).unwrap();
    let mut client = Client::new(disk.clone());
    for (offset, len, value) in [
        (512, 1024, 1),
        (100 << 10, 9 << 10, 2),
        (SIZE - 512, 512, 3),
    ] {
        client.write(offset, &vec![value; len as usize]).unwrap();
        expected[offset as usize..][..len as usize].fill(value);
    }
    let extent = Extent {
        offset: 101 << 10,
        len: 6 << 10,
    };
    let space = Space::Release;
    client
        .run(DiskOperation::WriteZeroes { extent, space })
        .unwrap();
    expected[101 << 10..107 << 10].fill(0);
    client.run(DiskOperation::Flush).unwrap();
    let image = || Image {
        bytes: std::fs::read(&path).unwrap(),
        cluster: 1 << 12,
    };
    // While it is still open.
    assert!(image().content() == expected);
    // Without a flush by the guest: when its queue or the disk is closed.
    client.write(8192, &[4; 512]).unwrap();
    expected[8192..8704].fill(4);
    drop(client);
    assert!(image().content() == expected);
    disk.flush().unwrap();
    drop(disk);
    assert!(Client::new(open(&path).unwrap()).read(0, SIZE).unwrap() == expected);
}

#[test]
fn a_file_behind_is_read_and_not_changed() {
    let files = Files::new();
    let base: Vec<u8> = (0..SIZE - 4096).map(|i| (i / 512 + 1) as u8).collect();
    files.write("base.raw", &base);
    let middle = Image::new(3, 12)
        .with_backing("base.raw", Some("raw"))
        .with_cluster(1, &[0xaa; 4096]);
    files.write("middle.qcow2", &middle.bytes);
    let top = Image::new(3, 16).with_backing("./middle.qcow2", Some("qcow2"));
    let path = files.write("top.qcow2", &top.bytes);
    // The base is shorter: zeroes follow.
    let mut expected = base.clone();
    expected.resize(SIZE as usize, 0);
    expected[4096..8192].fill(0xaa);
    let disk = open(&path).unwrap();
    let mut client = Client::new(disk);
    assert!(client.read(0, SIZE).unwrap() == expected);
    client.write(512, &[0xbb; 512]).unwrap();
    expected[512..1024].fill(0xbb);
    assert!(client.read(0, SIZE).unwrap() == expected);
    // Others may read the files behind it, and not write them.
    let behind = files.path("base.raw");
    assert!(matches!(open(&behind), Err(FileDiskError::InUse { .. })));
    assert!(disk_file::open(&behind, read_only()).is_ok());
    assert!(matches!(open(&path), Err(FileDiskError::InUse { .. })));
    drop(client);
    assert!(std::fs::read(files.path("base.raw")).unwrap() == base);
    assert!(std::fs::read(files.path("middle.qcow2")).unwrap() == middle.bytes);
}

#[test]
fn files_behind_are_named_by_images_only_near_them() {
    let files = Files::new();
    std::fs::create_dir(files.path("images")).unwrap();
    let secret = files.write("secret", &[1; 4096]);
    files.write("images/base", &[2; 4096]);
    std::os::unix::fs::symlink(&secret, files.path("images/link")).unwrap();
    let try_with = |name: &str, format| {
        let image = Image::new(3, 16).with_backing(name, format);
        files.write("images/disk.qcow2", &image.bytes)
    };
    for name in ["../secret", "link", secret.to_str().unwrap(), "/etc/passwd"] {
        let error = refused(&try_with(name, Some("raw")));
        assert!(error.contains("outside of the directory"), "{error}");
        assert!(error.contains(name), "{error}");
    }
    let error = refused(&try_with("missing", Some("raw")));
    assert!(
        error.contains("missing") && error.contains("No such file"),
        "{error}"
    );
    let error = refused(&try_with("base", None));
    assert!(error.contains("does not say its format"), "{error}");
    for format in ["vmdk", "vpc", "nbd"] {
        let path = try_with("base", Some(format));
        let error = open(&path).err().unwrap().source().unwrap().to_string();
        assert!(error.contains("only raw and qcow2"), "{error}");
    }
    let absolute = files.path("images/base");
    let path = try_with(absolute.to_str().unwrap(), Some("raw"));
    assert_eq!(
        Client::new(open(&path).unwrap()).read(0, 512).unwrap(),
        [2; 512]
    );
    // An image behind itself.
    let path = try_with("disk.qcow2", Some("qcow2"));
    assert!(open(&path).is_err());
    assert!(disk_file::open(&path, read_only()).is_err());
}

#[test]
fn what_is_not_supported_is_named() {
    let v3 = || Image::new(3, 16);
    for (image, reason) in [
        (v3().with(32, &1u32.to_be_bytes()), "encrypted (AES)"),
        (v3().with(32, &2u32.to_be_bytes()), "encrypted (LUKS)"),
        (v3().with(60, &1u32.to_be_bytes()), "internal snapshots"),
        (v3().with(79, &[1]), "dirty"),
        (v3().with(79, &[2]), "corrupt"),
        (v3().with(79, &[4]), "external data file"),
        (v3().with(79, &[8]), "compressed by another method"),
        (v3().with(79, &[16]), "subclusters"),
        (v3().with(79, &[32]), "unknown feature 5"),
        (v3().with(72, &[0x80]), "unknown feature 63"),
        (v3().with(23, &[8]), "cluster_bits is 0x8"),
        (v3().with(23, &[22]), "cluster_bits is 0x16"),
        (v3().with(99, &[7]), "refcount_order is 0x7"),
        (v3().with(24, &[0; 8]), "size is 0x0"),
        (v3().with(31, &[1]), "size is 0x40001"),
        (v3().with(24, &[0x7f]), "size is 0x7f"),
        (v3().with(36, &[0; 4]), "l1_size is 0x0"),
        (v3().with(36, &[0xff; 4]), "l1_size is 0xffffffff"),
        (v3().with(56, &[0xff; 4]), "refcount_table_clusters"),
        (v3().with(100, &[0xff; 4]), "header_length"),
        (v3().with(1 << 16, &[0; 8]), "first refcount block"),
        (v3().with((1 << 16) + 16, &[1; 8]), "a refcount block"),
    ] {
        let files = Files::new();
        let path = files.write("disk", &image.bytes);
        let error = refused(&path);
        assert!(error.contains(reason), "{reason}: {error}");
        // Refusing does not change it, and it can be used as it is.
        assert!(std::fs::read(&path).unwrap() == image.bytes);
        let format = Format::Raw;
        let options = FileOptions {
            format,
            ..Default::default()
        };
        let disk = disk_file::open(&path, options).unwrap();
        assert_eq!(disk.info().size(), image.bytes.len() as u64);
    }
}

#[test]
fn a_read_only_image_is_not_changed() {
    let image = Image::new(3, 12).with_cluster(0, &[5; 4096]);
    let files = Files::new();
    let path = files.write("disk", &image.bytes);
    let lower = disk_file::open(&path, read_only()).unwrap();
    let mut client = Client::new(lower.clone());
    assert!(matches!(
        client.write(0, &[1; 512]),
        Err(DiskError::ReadOnly)
    ));
    let mut client = Client::new(Arc::new(OverlayDisk::new(lower)));
    client.write(0, &[1; 512]).unwrap();
    let expected = [vec![1; 512], vec![5; 512]].concat();
    assert_eq!(client.read(0, 1024).unwrap(), expected);
    drop(client);
    assert!(std::fs::read(&path).unwrap() == image.bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn images_behave_as_the_model(
        script in exercise::script(SIZE),
        (version, bits) in prop_oneof![Just((3, 12)), Just((3, 16)), Just((2, 16))],
    ) {
        let mut content = vec![0; SIZE as usize];
        let cluster = 1usize << bits;
        let data: Vec<u8> = (0..cluster).map(|i| (i / 3) as u8).collect();
        content[cluster..2 * cluster].copy_from_slice(&data);
        let image = Image::new(version, bits).with_cluster(1, &data);
        let files = Files::new();
        let path = files.write("disk", &image.bytes);
        let disk = open(&path).unwrap();
        if version == 3 {
            exercise::compare(disk, content, &script);
        } else {
            // It offers no discards.
            let script: Vec<_> = script
                .into_iter()
                .filter(|step| !matches!(step.kind, exercise::StepKind::Discard))
                .collect();
            exercise::compare(disk, content, &script);
        }
    }
}
