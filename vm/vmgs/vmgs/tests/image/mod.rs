//! Stores built byte by byte, independent of the code under test: a CRC computed bit by bit, another
//! implementation of AES-GCM, and numeric offsets.
#![allow(dead_code, reason = "not every test needs all of it")]

use aes_gcm::Aes256Gcm;
use aes_gcm::KeyInit;
use aes_gcm::aead::AeadInOut;
use vmgs::*;

pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

pub(crate) fn seal(key: [u8; 32], nonce: [u8; 12], data: &mut [u8]) -> [u8; 16] {
    Aes256Gcm::new(&key.into())
        .encrypt_inout_detached(&nonce.into(), b"", data.into())
        .unwrap()
        .into()
}

pub(crate) fn unseal(key: [u8; 32], nonce: &[u8], tag: &[u8], data: &mut [u8]) {
    let nonce: [u8; 12] = nonce.try_into().unwrap();
    let tag: [u8; 16] = tag.try_into().unwrap();
    Aes256Gcm::new(&key.into())
        .decrypt_inout_detached(&nonce.into(), b"", data.into(), &tag.into())
        .unwrap();
}

pub(crate) const BLOCKS: usize = 32;
pub(crate) const DATASTORE: [u8; 32] = [0x11; 32];
pub(crate) const DATA: [u8; 32] = [0x40; 32];

pub(crate) struct Image(pub(crate) Vec<u8>);

impl Image {
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn header(
        &mut self,
        at: usize,
        version: u32,
        sequence: u32,
        algorithm: u16,
        record: &[u8],
    ) {
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

    pub(crate) fn checksum(&mut self, at: usize, len: usize) {
        self.put(at + 12, &[0; 4]);
        let crc = crc32(&self.0[at..at + len]);
        self.put(at + 12, &crc.to_le_bytes());
    }

    pub(crate) fn entry(
        &mut self,
        id: usize,
        block: u32,
        blocks: u32,
        size: u64,
        protection: &[u8],
    ) {
        let at = 5 * 4096 + id * 64;
        self.put(at, &block.to_le_bytes());
        self.put(at + 4, &blocks.to_le_bytes());
        self.put(at + 8, &size.to_le_bytes());
        self.put(at + 16, protection);
    }

    pub(crate) fn open(&self, sector: u32) -> Result<Vmgs, Error> {
        let device = MemoryDevice::with_bytes(sector, self.0.clone());
        Vmgs::open(Box::new(device), OpenOptions::default())
    }
}

/// File table in block 5, extended table in 9, file 8 in blocks 20 and 21, headers in both slots.
pub(crate) fn plain(sector: usize) -> Image {
    let mut image = single(sector);
    image.header(0, 0x0003_0000, 6, 0, &[]);
    image
}

/// The same with only the header in slot 1.
pub(crate) fn single(sector: usize) -> Image {
    let mut image = Image(vec![0; BLOCKS * 4096]);
    image.header(sector, 0x0003_0000, 7, 0, &[]);
    image.entry(0, 5, 1, 4096, &[]);
    image.entry(63, 9, 1, 4096, &[]);
    image.entry(8, 20, 2, 4100, &[]);
    image.put(20 * 4096, &[0xab; 4100]);
    image.put(21 * 4096 + 4, &[0xff; 4092]);
    image
}

/// How a writer differs from others.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Writer {
    Current,
    /// Its metadata key and the nonce and tag of its extended file table are zero.
    Faulty,
    /// It writes attributes only to the extended file table.
    Early,
}

pub(crate) fn encrypted(writer: Writer) -> Image {
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
    // The file table's own entry holds arbitrary values, as some writers leave it.
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
