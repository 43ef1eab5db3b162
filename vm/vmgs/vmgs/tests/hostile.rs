//! Damaged and malicious stores.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod image;

use image::*;
use vmgs::*;

#[test]
fn a_damaged_entry_affects_only_its_file() {
    let damages: [(u32, u32, u64, Damage); 6] = [
        (1, 1, 10, Damage::OutsideStore),
        (BLOCKS as u32, 1, 10, Damage::OutsideStore),
        (31, 2, 10, Damage::OutsideStore),
        (u32::MAX, u32::MAX, u64::MAX, Damage::OutsideStore),
        (25, 1, 4097, Damage::SizeExceedsBlocks),
        (5, 1, 1, Damage::Overlaps(FileId(0))),
    ];
    for (block, blocks, size, damage) in damages {
        let mut image = plain(512);
        image.entry(2, block, blocks, size, &[]);
        let mut store = image.open(512).unwrap();
        assert!(store.findings().contains(&Finding::DamagedFile {
            id: FileId(2),
            damage
        }));
        assert!(
            matches!(store.read(FileId(2)), Err(Error::DamagedFile { damage: d, .. }) if d == damage)
        );
        assert_eq!(store.read(FileId(8)).unwrap(), [0xab; 4100]);
        // Other files can be written, and the damaged file replaced or deleted.
        store
            .write(FileId(9), Protection::Plain, &[1; 5000])
            .unwrap();
        assert_eq!(store.read(FileId(8)).unwrap(), [0xab; 4100]);
        store
            .write(FileId(2), Protection::Plain, b"mended")
            .unwrap();
        assert_eq!(store.read(FileId(2)).unwrap(), b"mended");
        assert_eq!(store.findings(), []);
    }
    // Two files that share blocks: neither can be trusted.
    let mut image = plain(512);
    image.entry(2, 21, 1, 5, &[]);
    let mut store = image.open(512).unwrap();
    for id in [2, 8] {
        assert!(matches!(
            store.read(FileId(id)),
            Err(Error::DamagedFile { .. })
        ));
    }
    assert_eq!(store.read_stored(FileId(8)).unwrap(), [0xab; 4100]);
    store
        .write(FileId(9), Protection::Plain, &[1; 5000])
        .unwrap();
    assert_eq!(store.read_stored(FileId(8)).unwrap(), [0xab; 4100]);
}

#[test]
fn the_file_tables_own_entry_is_not_trusted() {
    let mut image = plain(512);
    image.entry(0, 30, 1, 4096, &[]);
    let device = MemoryDevice::with_bytes(512, image.0);
    let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
    assert_eq!(store.findings(), [Finding::MisplacedTableEntry]);
    let table = device.with(|bytes| bytes[5 * 4096..6 * 4096].to_vec());
    // The active file table is not overwritten, whatever its own entry says.
    store
        .write(FileId(2), Protection::Plain, &[2; 4096 * 10])
        .unwrap();
    assert_eq!(
        device.with(|bytes| bytes[5 * 4096..6 * 4096].to_vec()),
        table
    );
    assert_eq!(store.findings(), []);
}

#[test]
fn tampering_with_an_encrypted_store_is_detected() {
    let unlock = |image: &Image| {
        let mut store = image.open(512).unwrap();
        store.unlock(&Key::new(DATASTORE)).map(|()| store)
    };
    // Content, tag or nonce of the file.
    for at in [20 * 4096, 5 * 4096 + 3 * 64 + 16, 5 * 4096 + 3 * 64 + 28] {
        let mut image = encrypted(Writer::Current);
        image.0[at] ^= 1;
        let mut store = unlock(&image).unwrap();
        assert!(matches!(
            store.read(FileId(3)),
            Err(Error::Authentication(FileId(3)))
        ));
        assert_eq!(store.read(FileId(6)).unwrap(), b"plain");
        assert_eq!(store.verify(|_, _| ()), [Finding::Undecryptable(FileId(3))]);
        assert_eq!(store.rekey().unwrap(), [FileId(3)]);
    }
    // The extended table.
    let mut image = encrypted(Writer::Current);
    image.0[9 * 4096 + 100] ^= 1;
    let error = unlock(&image).err().unwrap();
    assert!(
        matches!(error, Error::Authentication(FileId(63))),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // Unencrypted content in place of encrypted content, with a matching entry.
    let mut image = encrypted(Writer::Current);
    image.entry(3, 20, 1, 5, &[0; 32]);
    let mut store = unlock(&image).unwrap();
    assert!(matches!(
        store.read(FileId(3)),
        Err(Error::DamagedFile {
            damage: Damage::ExpectedEncrypted,
            ..
        })
    ));
    // An entry that claims that an unencrypted file is encrypted.
    let mut image = encrypted(Writer::Current);
    image.entry(6, 21, 1, 5, &[1; 32]);
    let mut store = unlock(&image).unwrap();
    assert!(matches!(
        store.read(FileId(6)),
        Err(Error::DamagedFile {
            damage: Damage::ExpectedPlain,
            ..
        })
    ));
}

/// Encrypted files of no bytes, and with a ciphertext of zeros, are readable.
#[test]
fn encrypted_content_is_validated_by_its_tag() {
    let mut image = encrypted(Writer::Current);
    let nonce = [9, 8, 7, 6, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut plain = [0; 1];
    seal(DATA, nonce, &mut plain);
    let byte = plain[0];
    let mut data = [byte];
    let tag = seal(DATA, nonce, &mut data);
    assert_eq!(data, [0]);
    image.put(20 * 4096, &[0; 21]);
    image.entry(3, 20, 1, 1, &[&nonce[..], &tag, &[3, 0, 0, 0]].concat());
    let mut store = image.open(512).unwrap();
    store.unlock(&Key::new(DATASTORE)).unwrap();
    assert_eq!(store.read(FileId(3)).unwrap(), [byte]);
    store.write(FileId(4), Protection::Encrypted, b"").unwrap();
    assert_eq!(store.read(FileId(4)).unwrap(), b"");
}

#[test]
fn huge_sizes_in_tables_cause_no_allocation() {
    /// A disk of 16 TiB that is zero except for its first blocks.
    struct Sparse(MemoryDevice);
    impl BlockDevice for Sparse {
        fn sector_size(&self) -> u32 {
            512
        }
        fn sector_count(&self) -> u64 {
            1 << 35
        }
        fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
            buf.fill(0);
            if offset < (BLOCKS * 4096) as u64 {
                self.0.read_at(offset, buf)?;
            }
            Ok(())
        }
        fn write_at(&mut self, _: u64, _: &[u8]) -> std::io::Result<()> {
            unreachable!("nothing is written")
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut image = plain(512);
    let blocks = u32::MAX - 100;
    image.entry(2, 50, blocks, u64::from(blocks) * 4096, &[]);
    let device = Sparse(MemoryDevice::with_bytes(512, image.0));
    let mut store = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
    assert_eq!(store.findings(), []);
    assert!(matches!(
        store.read(FileId(2)),
        Err(Error::TooLargeToRead { .. })
    ));
    assert!(store.read_at_most(FileId(2), u64::MAX).is_err());
    let mut buf = [1; 100];
    assert_eq!(store.read_range(FileId(2), 1 << 40, &mut buf).unwrap(), 100);
    assert_eq!(buf, [0; 100]);
}

/// The stored bytes of a damaged file can be read as far as they are inside the store.
#[test]
fn stored_bytes_of_damaged_files_are_read_up_to_the_end_of_the_store() {
    let cases = [
        // Size larger than the blocks: the bytes of the blocks are read.
        (20, 1, 5000, Some(4096)),
        // Blocks after the end of the store: the blocks before the end are read.
        (BLOCKS as u32 - 2, 5, 20_000, Some(8192)),
        (BLOCKS as u32 - 2, u32::MAX, 100, Some(100)),
        (BLOCKS as u32, 1, 10, None),
        (u32::MAX, u32::MAX, u64::MAX, None),
        (1, 3, 10, None),
    ];
    for (block, blocks, size, readable) in cases {
        let mut image = plain(512);
        image.entry(2, block, blocks, size, &[]);
        let mut store = image.open(512).unwrap();
        let stored = store.read_stored(FileId(2));
        let mut streamed = Vec::new();
        let passed_on = store.read_stored_to(FileId(2), &mut streamed);
        match readable {
            Some(len) => {
                let start = block as usize * 4096;
                assert_eq!(stored.unwrap(), image.0[start..start + len]);
                assert_eq!(passed_on.unwrap(), len as u64);
                assert_eq!(streamed, image.0[start..start + len]);
            }
            None => {
                assert!(matches!(stored, Err(Error::DamagedFile { .. })));
                assert!(matches!(passed_on, Err(Error::DamagedFile { .. })));
            }
        }
        let content = store.read(FileId(2));
        assert!(matches!(content, Err(Error::DamagedFile { .. })));
    }
}

/// A disk whose writes or flushes fail with a given error.
struct Failing {
    disk: MemoryDevice,
    writes: Option<std::io::ErrorKind>,
    flushes: Option<std::io::ErrorKind>,
    sector_size: u32,
}

impl Failing {
    fn check(kind: Option<std::io::ErrorKind>) -> std::io::Result<()> {
        kind.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl BlockDevice for Failing {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }
    fn sector_count(&self) -> u64 {
        self.disk.sector_count()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        Self::check(self.writes)?;
        self.disk.write_at(offset, buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Self::check(self.flushes)
    }
}

#[test]
fn a_full_file_system_is_reported_as_a_full_disk() {
    use std::io::ErrorKind as Io;
    let cases = [
        (Some(Io::StorageFull), None, ErrorKind::DiskFull),
        (Some(Io::QuotaExceeded), None, ErrorKind::DiskFull),
        (None, Some(Io::StorageFull), ErrorKind::DiskFull),
        (Some(Io::Other), None, ErrorKind::Io),
        (None, Some(Io::Other), ErrorKind::Io),
    ];
    for (writes, flushes, kind) in cases {
        let device = Failing {
            disk: MemoryDevice::with_bytes(512, plain(512).0),
            writes,
            flushes,
            sector_size: 512,
        };
        let mut store = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
        let error = store.write(FileId(8), Protection::Plain, b"x").unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(store.read(FileId(8)).unwrap(), [0xab; 4100]);
    }
}

#[test]
fn each_failure_to_open_has_its_error() {
    let open = |sector_size, image: Vec<u8>| {
        let device = Failing {
            disk: MemoryDevice::with_bytes(512, image),
            writes: None,
            flushes: None,
            sector_size,
        };
        let options = OpenOptions::default();
        Vmgs::open_or_format(Box::new(device), options, OpenPolicy::default())
            .err()
            .unwrap()
    };
    let zero = vec![0; BLOCKS * 4096];
    assert!(matches!(open(513, zero.clone()), Error::Geometry { .. }));
    assert!(matches!(open(512, zero), Error::Empty));
    let error = open(512, vec![1; BLOCKS * 4096]);
    assert!(matches!(error, Error::InvalidFormat { .. }));
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let mut image = plain(512);
    image.header(0, 0x0003_0000, 9, 0, &[]);
    let error = open(512, image.0);
    assert!(matches!(error, Error::SequenceGap { .. }));
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
