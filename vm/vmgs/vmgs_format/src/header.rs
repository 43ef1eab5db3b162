//! The header and its metadata key records.

use crate::KEY_LEN;
use crate::NONCE_LEN;
use crate::TAG_LEN;
use core::fmt;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;

/// [`Header::markers`] bit: the store was reformatted on request, and must not be reformatted again
/// until it has been opened normally once.
pub const MARKER_REPROVISIONED: u16 = 1;

/// A format version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// The layout without encryption: the header ends before [`Header::encryption_algorithm`], files have
    /// no nonce, tag and attributes, and there is no extended file table.
    pub const V2_0: Version = Version(0x0002_0000);
    /// The version that this implementation writes.
    pub const V3_0: Version = Version(0x0003_0000);

    /// The major version.
    pub const fn major(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The minor version.
    pub const fn minor(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

/// The algorithm that encrypts files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptionAlgorithm(pub u16);

impl EncryptionAlgorithm {
    /// No encryption: the store has no keys.
    pub const NONE: Self = Self(0);
    /// AES-256 in Galois/counter mode, without associated data.
    pub const AES_GCM: Self = Self(1);
}

/// The metadata key, encrypted (wrapped) under one datastore key. All zero if unused.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MetadataKeyRecord {
    /// The nonce: four random bytes and a 64-bit little-endian counter.
    pub nonce: [u8; NONCE_LEN],
    /// Written 0.
    pub reserved: U32,
    /// The AES-GCM tag.
    pub tag: [u8; TAG_LEN],
    /// The wrapped key.
    pub encrypted_key: [u8; KEY_LEN],
}

impl MetadataKeyRecord {
    /// An unused record.
    pub const EMPTY: Self = Self {
        nonce: [0; NONCE_LEN],
        reserved: U32::ZERO,
        tag: [0; TAG_LEN],
        encrypted_key: [0; KEY_LEN],
    };

    /// Whether the record holds a key, that is, whether the wrapped key is not all zero.
    pub fn is_occupied(&self) -> bool {
        self.encrypted_key != [0; KEY_LEN]
    }
}

impl fmt::Debug for MetadataKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataKeyRecord")
            .field("nonce", &self.nonce)
            .field("occupied", &self.is_occupied())
            .finish_non_exhaustive()
    }
}

/// One of the two header copies.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// [`Header::SIGNATURE`].
    pub signature: [u8; 8],
    /// A [`Version`].
    pub version: U32,
    /// CRC-32 of the header: [`Header::checksum_of`].
    pub checksum: U32,
    /// Sequence number: one more than that of the header it supersedes, wrapping.
    pub sequence: U32,
    /// Length of this header in bytes: [`Header::LEN`].
    pub header_size: U32,
    /// Block number of the file table.
    pub file_table_offset: U32,
    /// Number of blocks of the file table: 1.
    pub file_table_size: U32,
    /// An [`EncryptionAlgorithm`].
    pub encryption_algorithm: U16,
    /// [`MARKER_REPROVISIONED`]; other bits are written 0.
    pub markers: U16,
    /// The metadata key, wrapped under up to two datastore keys.
    pub metadata_keys: [MetadataKeyRecord; 2],
    /// Written 0.
    pub reserved: U32,
}

impl Header {
    /// The signature of a header.
    pub const SIGNATURE: [u8; 8] = *b"GUESTRTS";
    /// Length in bytes of a header of version 3.0.
    pub const LEN: usize = 168;
    /// Length in bytes of a header of version 2.0, which is the first part of this layout.
    pub const V2_LEN: usize = 32;

    /// The checksum of the bytes of a header: their CRC-32 (ISO-HDLC) with the checksum field taken as
    /// zero. Fewer than 16 bytes have no checksum field; the result is then the CRC-32 of no bytes.
    pub fn checksum_of(header: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        if let (Some(before), Some(after)) = (header.get(..12), header.get(16..)) {
            crc.update(before);
            crc.update(&[0; 4]);
            crc.update(after);
        }
        crc.finalize()
    }

    /// This header with its checksum filled in.
    pub fn with_checksum(mut self) -> Self {
        self.checksum = Self::checksum_of(self.as_bytes()).into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn layout() {
        assert_eq!(size_of::<Header>(), Header::LEN);
        assert_eq!(size_of::<MetadataKeyRecord>(), 64);
        assert_eq!(offset_of!(Header, checksum), 12);
        assert_eq!(offset_of!(Header, encryption_algorithm), Header::V2_LEN);
        assert_eq!(offset_of!(Header, metadata_keys), 36);
        assert_eq!(offset_of!(Header, reserved), 164);
        assert_eq!(offset_of!(MetadataKeyRecord, tag), 16);
        assert_eq!(offset_of!(MetadataKeyRecord, encrypted_key), 32);
    }

    fn checksum(sequence: u32, table: u32, markers: u16) -> u32 {
        Header {
            signature: Header::SIGNATURE,
            version: Version::V3_0.0.into(),
            checksum: 0x5555_5555.into(),
            sequence: sequence.into(),
            header_size: (Header::LEN as u32).into(),
            file_table_offset: table.into(),
            file_table_size: 1.into(),
            encryption_algorithm: EncryptionAlgorithm::NONE.0.into(),
            markers: markers.into(),
            metadata_keys: [MetadataKeyRecord::EMPTY; 2],
            reserved: 0.into(),
        }
        .with_checksum()
        .checksum
        .get()
    }

    #[test]
    fn known_checksums() {
        assert_eq!(checksum(1, 2, 0), 0x6D2E_ED28);
        assert_eq!(checksum(2, 4, 0), 0xD186_BD34);
        assert_eq!(checksum(3, 2, 0), 0x9612_400B);
        assert_eq!(checksum(2, 2, 1), 0xFC26_62AC);
        assert_eq!(checksum(0, 2, 0), 0xFD08_3899);
        assert_eq!(checksum(u32::MAX, 4, 0), 0xC239_7D31);
    }

    #[test]
    fn checksum_of_bytes_without_checksum_field_is_zero() {
        for len in 0..16 {
            assert_eq!(Header::checksum_of(&[0xff; 16][..len]), 0);
        }
    }

    #[test]
    fn version_is_printed_as_major_dot_minor() {
        extern crate std;
        use std::string::ToString;
        assert_eq!(Version(0x0003_0001).to_string(), "3.1");
        assert!(Version::V2_0 < Version::V3_0);
    }
}
