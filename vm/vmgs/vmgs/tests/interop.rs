//! Stores built and taken apart byte by byte, with nothing of the code under test: a CRC computed bit
//! by bit, another implementation of the cipher, and offsets as numbers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use aes_gcm::Aes256Gcm;
use aes_gcm::KeyInit;
use aes_gcm::aead::AeadInOut;
use vmgs::*;

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

fn seal(key: [u8; 32], nonce: [u8; 12], data: &mut [u8]) -> [u8; 16] {
    Aes256Gcm::new(&key.into())
        .encrypt_inout_detached(&nonce.into(), b"", data.into())
        .unwrap()
        .into()
}

fn unseal(key: [u8; 32], nonce: &[u8], tag: &[u8], data: &mut [u8]) {
    let nonce: [u8; 12] = nonce.try_into().unwrap();
    let tag: [u8; 16] = tag.try_into().unwrap();
    Aes256Gcm::new(&key.into())
        .decrypt_inout_detached(&nonce.into(), b"", data.into(), &tag.into())
        .unwrap();
}

const BLOCKS: usize = 32;
const DATASTORE: [u8; 32] = [0x11; 32];
const DATA: [u8; 32] = [0x40; 32];

struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn header(&mut self, at: usize, version: u32, sequence: u32, algorithm: u16, record: &[u8]) {
        self.put(at, b"GUESTRTS");
        self.put(at + 8, &version.to_le_bytes());
        self.put(at + 16, &sequence.to_le_bytes());
        self.put(at + 20, &168u32.to_le_bytes());
        self.put(at + 24, &5u32.to_le_bytes());
        self.put(at + 28, &1u32.to_le_bytes());
        self.put(at + 32, &algorithm.to_le_bytes());
        self.put(at + 36, record);
        self.checksum(at, 168);
    }

    fn checksum(&mut self, at: usize, len: usize) {
        self.put(at + 12, &[0; 4]);
        let crc = crc32(&self.0[at..at + len]);
        self.put(at + 12, &crc.to_le_bytes());
    }

    fn entry(&mut self, id: usize, block: u32, blocks: u32, size: u64, protection: &[u8]) {
        let at = 5 * 4096 + id * 64;
        self.put(at, &block.to_le_bytes());
        self.put(at + 4, &blocks.to_le_bytes());
        self.put(at + 8, &size.to_le_bytes());
        self.put(at + 16, protection);
    }

    fn open(&self, sector: u32) -> Result<Vmgs, Error> {
        let device = MemoryDevice::with_bytes(sector, self.0.clone());
        Vmgs::open(Box::new(device), OpenOptions::default())
    }
}

/// File table in block 5, extended table in 9, file 8 in blocks 20 and 21, headers in both slots.
fn plain(sector: usize) -> Image {
    let mut image = single(sector);
    image.header(0, 0x0003_0000, 6, 0, &[]);
    image
}

/// The same with only the header in slot 1.
fn single(sector: usize) -> Image {
    let mut image = Image(vec![0; BLOCKS * 4096]);
    image.header(sector, 0x0003_0000, 7, 0, &[]);
    image.entry(0, 5, 1, 4096, &[]);
    image.entry(63, 9, 1, 4096, &[]);
    image.entry(8, 20, 2, 4100, &[]);
    image.put(20 * 4096, &[0xab; 4100]);
    image.put(21 * 4096 + 4, &[0xff; 4092]);
    image
}

/// How a writer differed from others.
#[derive(Clone, Copy, PartialEq)]
enum Writer {
    Current,
    /// It made the metadata key, the table's nonce and tag of zeros.
    Faulty,
    /// It kept attributes in the extended table only.
    Early,
}

fn encrypted(writer: Writer) -> Image {
    let mut image = Image(vec![0; BLOCKS * 4096]);
    let (metadata, table_nonce) = match writer {
        Writer::Faulty => ([0; 32], [0; 12]),
        _ => ([0x80; 32], [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]),
    };
    let attributes: &[u8] = if writer == Writer::Early {
        &[0; 4]
    } else {
        &[3, 0, 0, 0]
    };

    let file_nonce = [9, 8, 7, 6, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut data = *b"a secret of the guest";
    let file_tag = seal(DATA, file_nonce, &mut data);
    image.put(20 * 4096, &data);
    image.entry(
        3,
        20,
        1,
        21,
        &[&file_nonce[..], &file_tag, attributes].concat(),
    );
    image.put(21 * 4096, b"plain");
    image.entry(6, 21, 1, 5, &[]);

    let mut table = vec![0; 4096];
    table[3 * 64] = 3;
    table[3 * 64 + 4..3 * 64 + 36].copy_from_slice(&DATA);
    // The table's entry for itself is what the writer had left over; it means nothing.
    table[63 * 64..63 * 64 + 36].fill(0x77);
    let table_tag = seal(metadata, table_nonce, &mut table);
    image.put(9 * 4096, &table);
    image.entry(
        63,
        9,
        1,
        4096,
        &[&table_nonce[..], &table_tag, attributes].concat(),
    );
    image.entry(0, 5, 1, 4096, &[]);

    let record_nonce = [5, 5, 5, 5, 1, 0, 0, 0, 0, 0, 0, 0];
    let mut wrapped = metadata;
    let record_tag = seal(DATASTORE, record_nonce, &mut wrapped);
    let record = [&record_nonce[..], &[0; 4], &record_tag, &wrapped].concat();
    image.header(0, 0x0003_0000, 3, 1, &record);
    image.header(512, 0x0003_0000, 2, 1, &record);
    image
}

#[test]
fn plain_stores_of_others_are_read() {
    for sector in [512, 4096] {
        let mut store = plain(sector).open(sector as u32).unwrap();
        assert_eq!(store.findings(), []);
        assert_eq!(store.active_header(), (1, 7));
        assert_eq!(store.read(FileId(8)).unwrap(), [0xab; 4100]);
        let files: Vec<u32> = store.files().map(|(id, _)| id.0).collect();
        assert_eq!(files, [0, 8, 63]);
    }
}

#[test]
fn encrypted_stores_of_all_writers_are_read() {
    for writer in [Writer::Current, Writer::Faulty, Writer::Early] {
        let mut store = encrypted(writer).open(512).unwrap();
        assert_eq!(store.findings(), []);
        assert_eq!(store.read(FileId(6)).unwrap(), b"plain");
        assert!(matches!(store.read(FileId(3)), Err(Error::Locked)));
        // Not even early writers' files are overwritten by mistake.
        assert!(matches!(
            store.write(FileId(3), Protection::Plain, b"x"),
            Err(Error::OverwriteEncrypted(_))
        ));
        store.unlock(&Key::new(DATASTORE)).unwrap();
        assert_eq!(store.read(FileId(3)).unwrap(), b"a secret of the guest");
        assert!(store.file_info(FileId(3)).unwrap().encrypted);
        assert_eq!(store.read(FileId(6)).unwrap(), b"plain");
        let warned = store.findings() == [Finding::ZeroMetadataKey];
        assert_eq!(warned, writer == Writer::Faulty);
        assert_eq!(Finding::ZeroMetadataKey.severity(), Severity::Warning);
    }
}

/// The datastore key unwraps this metadata key from the header in force.
fn metadata_key(image: &[u8], slot: usize, datastore: [u8; 32]) -> [u8; 32] {
    let record = &image[slot * 512 + 36..slot * 512 + 100];
    let mut key: [u8; 32] = record[32..64].try_into().unwrap();
    unseal(datastore, &record[..12], &record[16..32], &mut key);
    key
}

#[test]
fn a_zero_metadata_key_is_never_written() {
    type Change = fn(&mut Vmgs);
    let changes: [Change; 5] = [
        |s| s.write(FileId(3), Protection::Encrypted, b"x").unwrap(),
        |s| s.delete(FileId(3)).unwrap(),
        |s| s.update_key(&Key::new([0x22; 32])).unwrap(),
        |s| s.add_key(&Key::new([0x22; 32])).unwrap(),
        |s| drop(s.rekey().unwrap()),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let device = MemoryDevice::with_bytes(512, encrypted(Writer::Faulty).0);
        let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
        store.unlock(&Key::new(DATASTORE)).unwrap();
        change(&mut store);
        assert_eq!(store.findings(), []);
        let (slot, _) = store.active_header();
        let image = device.to_vec();
        let mut keys = Vec::new();
        for record in [36, 100] {
            let record = &image[slot * 512 + record..][..64];
            for datastore in [DATASTORE, [0x22; 32]] {
                let mut key: [u8; 32] = record[32..64].try_into().unwrap();
                let opened = Aes256Gcm::new(&datastore.into()).decrypt_inout_detached(
                    record[..12].try_into().unwrap(),
                    b"",
                    (&mut key[..]).into(),
                    record[16..32].try_into().unwrap(),
                );
                keys.extend(opened.is_ok().then_some(key));
            }
        }
        assert!(!keys.is_empty(), "{i}");
        assert!(keys.iter().all(|key| *key != [0; 32]), "{i}");
    }
}

/// Takes a store that this crate wrote apart.
#[test]
fn what_is_written_is_what_others_read() {
    let device = MemoryDevice::new(512, BLOCKS * 4096);
    let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    store.encrypt(&Key::new(DATASTORE)).unwrap();
    store.write(FileId(6), Protection::Plain, b"plain").unwrap();
    let secret: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    for _ in 0..3 {
        store
            .write(FileId(3), Protection::Encrypted, &secret)
            .unwrap();
    }
    let (slot, sequence) = store.active_header();
    assert_eq!((slot, sequence), (1, 6));

    let image = device.to_vec();
    let u32_at = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let at = slot * 512;
    assert_eq!(&image[at..at + 8], b"GUESTRTS");
    assert_eq!(u32_at(at + 8), 0x0003_0000);
    assert_eq!(u32_at(at + 20), 168);
    assert_eq!(u32_at(at + 28), 1);
    assert_eq!(image[at + 32..at + 36], [1, 0, 0, 0]);
    let mut header = image[at..at + 168].to_vec();
    header[12..16].fill(0);
    assert_eq!(u32_at(at + 12), crc32(&header));

    let table = u32_at(at + 24) as usize * 4096;
    let entry = |id: usize| &image[table + id * 64..table + id * 64 + 64];
    assert_eq!(u32_at(table) as usize * 4096, table);
    assert_eq!(u32_at(table + 4), 1);
    let bytes_of = |id: usize| {
        let size = u64::from_le_bytes(entry(id)[8..16].try_into().unwrap()) as usize;
        let start = u32_at(table + id * 64) as usize * 4096;
        image[start..start + size].to_vec()
    };
    assert_eq!(bytes_of(6), b"plain");
    assert_eq!(entry(6)[16..], [0; 48]);
    assert_eq!(entry(3)[44..48], [3, 0, 0, 0]);
    assert_eq!(entry(3)[48..], [0; 16]);
    // A counter that has just started.
    assert_eq!(entry(3)[20..28], [0; 8]);

    let metadata = metadata_key(&image, slot, DATASTORE);
    let mut extended = bytes_of(63);
    unseal(
        metadata,
        &entry(63)[16..28],
        &entry(63)[28..44],
        &mut extended,
    );
    assert_eq!(entry(63)[44..48], [3, 0, 0, 0]);
    assert_eq!(extended[6 * 64..7 * 64], [0; 64]);
    assert_eq!(extended[63 * 64..], [0; 64]);
    assert_eq!(extended[3 * 64..3 * 64 + 4], [3, 0, 0, 0]);
    let key: [u8; 32] = extended[3 * 64 + 4..3 * 64 + 36].try_into().unwrap();
    let mut content = bytes_of(3);
    unseal(key, &entry(3)[16..28], &entry(3)[28..44], &mut content);
    assert_eq!(content, secret);
    // The record was wrapped once by `encrypt` and then by each of the three encrypted writes, whose
    // nonces count.
    assert_eq!(image[at + 40..at + 48], [3, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn version_two_is_read_and_upgraded_on_request() {
    for header_len in [32u32, 168] {
        let mut image = single(512);
        image.put(512 + 8, &0x0002_0000u32.to_le_bytes());
        image.put(512 + 20, &header_len.to_le_bytes());
        image.checksum(512, header_len as usize);
        // There is no extended table, and what would be attributes is not.
        image.entry(63, 0, 0, 0, &[]);
        image.entry(8, 20, 2, 4100, &[0xee; 32]);
        let device = MemoryDevice::with_bytes(512, image.0);
        let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
        assert_eq!(store.read(FileId(8)).unwrap(), [0xab; 4100]);
        assert!(matches!(
            store.write(FileId(8), Protection::Plain, b"x"),
            Err(Error::OldVersion(_))
        ));
        store.upgrade().unwrap();
        let mut store = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
        assert_eq!(store.version().to_string(), "3.0");
        assert_eq!(store.read(FileId(8)).unwrap(), [0xab; 4100]);
        store.write(FileId(8), Protection::Plain, b"x").unwrap();
        assert_eq!(store.findings(), []);
    }
}

#[test]
fn header_rules() {
    let code = |change: &dyn Fn(&mut Image)| {
        let mut image = single(512);
        change(&mut image);
        image.checksum(512, 168);
        match image.open(512) {
            Ok(_) => panic!("opened"),
            Err(Error::InvalidFormat { second, .. }) => second,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(code(&|i| i.put(512, b"X")), HeaderError::Signature);
    assert_eq!(code(&|i| i.put(512 + 20, &[169])), HeaderError::Size(169));
    assert_eq!(
        code(&|i| i.put(512 + 24, &[1])),
        HeaderError::TableOffset(1)
    );
    assert_eq!(
        code(&|i| i.put(512 + 24, &[BLOCKS as u8])),
        HeaderError::TableOffset(32)
    );
    assert_eq!(code(&|i| i.put(512 + 28, &[2])), HeaderError::TableSize(2));
    assert_eq!(code(&|i| i.put(512 + 32, &[2])), HeaderError::Algorithm(2));

    let error = |change: &dyn Fn(&mut Image)| {
        let mut image = single(512);
        change(&mut image);
        image.open(512).err().unwrap()
    };
    assert!(matches!(
        error(&|i| i.put(512 + 40, &[1])),
        Error::InvalidFormat {
            second: HeaderError::Checksum { .. },
            ..
        }
    ));
    assert!(matches!(
        error(&|i| i.put(512, b"EFI PART")),
        Error::V1Format
    ));
    assert!(matches!(error(&|i| i.put(0, &[0; 8192])), Error::Empty));
    for version in [0x0003_0001u32, 0x0001_0000] {
        let unsupported = error(&|i| {
            i.put(512 + 8, &version.to_le_bytes());
            i.checksum(512, 168);
        });
        assert!(
            matches!(unsupported, Error::UnsupportedVersion(_)),
            "{unsupported}"
        );
    }
    for sequence in [7, 5, 9] {
        let gap = error(&|i| i.header(0, 0x0003_0000, sequence, 0, &[]));
        assert!(matches!(gap, Error::SequenceGap { second: 7, .. }), "{gap}");
    }
    for (sequence, slot) in [(6, 1), (8, 0)] {
        let mut image = single(512);
        image.header(0, 0x0003_0000, sequence, 0, &[]);
        assert_eq!(image.open(512).unwrap().active_header().0, slot);
    }
}

#[test]
fn a_damaged_entry_costs_its_file_only() {
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
        // The others can be written, and the damaged one replaced or deleted.
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
fn entry_zero_is_not_believed() {
    let mut image = plain(512);
    image.entry(0, 30, 1, 4096, &[]);
    let device = MemoryDevice::with_bytes(512, image.0);
    let mut store = Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
    assert_eq!(store.findings(), [Finding::MisplacedTableEntry]);
    let table = device.with(|bytes| bytes[5 * 4096..6 * 4096].to_vec());
    // The table in force is not overwritten, whatever its entry says.
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
fn tampering_with_an_encrypted_store_is_noticed() {
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
    // Plain content in place of encrypted, and the entry cleaned to match.
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
    // Encryption claimed for a plain file.
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

/// An encrypted file of no bytes is readable, and so is one whose ciphertext happens to be zero.
#[test]
fn ciphertext_is_judged_by_its_tag_only() {
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
fn huge_claims_cost_nothing() {
    /// A disk of 16 TiB that is zero but for its first blocks.
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
