//! What hibernation keeps in a store.

use crate::FileId;
use core::fmt;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// Bytes in a hibernation token file. A file of any other length is corrupt.
pub const HIBERNATION_TOKEN_LEN: usize = 8;
/// The smallest store, in bytes, that a firmware image is kept in: room for two copies of it, because
/// a file is replaced by writing the new one beside the old, and for everything else.
pub const HIBERNATION_MIN_STORE_SIZE: u64 = 32 << 20;

/// The content of [`FileId::HIBERNATION_TOKEN`], a little-endian `u64`. No file means the same as
/// [`HibernationToken::NONE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HibernationToken(pub u64);

impl HibernationToken {
    /// The guest was shut down or reset.
    pub const NONE: Self = Self(0);
    /// The guest hibernated; its firmware image was not kept.
    pub const HIBERNATED: Self = Self(1);
    /// The guest hibernated; its firmware image is in [`FileId::HIBERNATION_FIRMWARE`].
    pub const HIBERNATED_WITH_IMAGE: Self = Self(u64::MAX);

    /// The token in a file with these bytes, unless their number is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(u64::from_le_bytes(bytes.try_into().ok()?)))
    }

    /// The bytes of the file.
    pub fn to_bytes(self) -> [u8; HIBERNATION_TOKEN_LEN] {
        self.0.to_le_bytes()
    }

    /// The major and minor version of the firmware, in a token of the encoding that names a firmware
    /// version. The value 1 is [`HibernationToken::HIBERNATED`] and no version.
    pub fn firmware_version(self) -> Option<(u8, u8)> {
        match self.0 {
            2..=0xffff => Some(((self.0 >> 8) as u8, self.0 as u8)),
            _ => None,
        }
    }
}

/// Says in words what the token means.
impl fmt::Display for HibernationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.firmware_version()) {
            (Self::NONE, _) => f.write_str("not hibernated"),
            (Self::HIBERNATED, _) => f.write_str("hibernated, no firmware image stored"),
            (Self::HIBERNATED_WITH_IMAGE, _) => f.write_str("hibernated, firmware image stored"),
            (_, Some((major, minor))) => write!(f, "hibernated under firmware {major}.{minor}"),
            _ => write!(f, "unknown token {:#x}", self.0),
        }
    }
}

/// Bytes in a [`FirmwareRecordHeader`].
pub const FIRMWARE_RECORD_HEADER_LEN: usize = 256;
/// Bytes in a [`FirmwareRecordSection`].
pub const FIRMWARE_RECORD_SECTION_LEN: usize = 112;

/// What [`FileId::HIBERNATION_FIRMWARE`] starts with: the firmware a guest ran on, and what the firmware
/// was told about the machine.
///
/// The header is followed by [`FirmwareRecordHeader::section_count`] entries of the section table, and
/// that by the content of the sections, in the order of the table, without gaps. The image, in one
/// or several parts, comes first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FirmwareRecordHeader {
    /// [`FirmwareRecordHeader::MAGIC`].
    pub magic: [u8; 8],
    /// Of the whole record: 1.
    pub version: U16,
    /// [`FIRMWARE_RECORD_HEADER_LEN`].
    pub header_len: U16,
    /// No flag is defined; a reader rejects unknown ones.
    pub flags: U32,
    /// 1 for x86_64, 2 for aarch64.
    pub architecture: U32,
    /// 1 for SHA-256, everywhere in the record.
    pub digest_algorithm: U32,
    /// The guest-physical address of the first part of the image.
    pub load_gpa: U64,
    /// Bytes of all parts of the image.
    pub image_len: U64,
    /// How the entry point is found: one of the `ENTRY_` constants.
    pub entry_rule: U32,
    /// Entries in the section table.
    pub section_count: U32,
    /// The guest-physical address of the first instruction, as it was when captured.
    pub entry_gpa: U64,
    /// Bytes of the whole record: the length of the file.
    pub record_len: U64,
    /// A random GUID, new for every record stored.
    pub image_id: [u8; 16],
    /// When the image was captured, in units of 100 ns since 1601 UTC.
    pub capture_time: U64,
    /// Digest of the image: of its one part, or of the digests of its parts.
    pub image_digest: [u8; 32],
    /// Digest of the machine's description, which is in a section of its own.
    pub platform_digest: [u8; 32],
    /// Digest of the section table.
    pub table_digest: [u8; 32],
    /// What the firmware calls itself, in UTF-8 followed by zeros; empty if unknown.
    pub firmware_version: [u8; 64],
    /// CRC-32 (ISO-HDLC) of the bytes before this field.
    pub crc: U32,
    /// Zero.
    pub reserved: U32,
}

impl FirmwareRecordHeader {
    /// What the file starts with.
    pub const MAGIC: [u8; 8] = *b"HIBFWIMG";
    /// The version written.
    pub const VERSION: u16 = 1;
    /// [`FirmwareRecordHeader::architecture`] of x86_64.
    pub const X86_64: u32 = 1;
    /// [`FirmwareRecordHeader::architecture`] of aarch64.
    pub const AARCH64: u32 = 2;
    /// [`FirmwareRecordHeader::digest_algorithm`] SHA-256.
    pub const SHA256: u32 = 1;
    /// [`FirmwareRecordHeader::entry_rule`]: the x86 reset vector, 16 bytes below 4 GiB.
    pub const ENTRY_RESET_VECTOR: u32 = 1;
    /// [`FirmwareRecordHeader::entry_rule`]: the entry point of the security core (SEC) that is found
    /// in the image (PI specification, volumes 1 and 3).
    pub const ENTRY_SEC_CORE: u32 = 2;
    /// [`FirmwareRecordHeader::entry_rule`]: always at the same address.
    pub const ENTRY_FIXED: u32 = 3;

    /// The CRC that belongs in [`FirmwareRecordHeader::crc`].
    pub fn expected_crc(&self) -> u32 {
        let bytes = self.as_bytes();
        crc32fast::hash(&bytes[..core::mem::offset_of!(Self, crc)])
    }

    /// Whether magic, version, length, flags and CRC are right. Says nothing about the image.
    pub fn is_valid(&self) -> bool {
        self.magic == Self::MAGIC
            && self.version.get() == Self::VERSION
            && usize::from(self.header_len.get()) == FIRMWARE_RECORD_HEADER_LEN
            && self.flags.get() == 0
            && self.reserved.get() == 0
            && self.crc.get() == self.expected_crc()
    }
}

/// An entry of the section table of a record.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FirmwareRecordSection {
    /// What is in the section: one of the constants.
    pub kind: U32,
    /// No flag is defined; a reader rejects unknown ones.
    pub flags: U32,
    /// Where a part of the image belongs in guest-physical memory; 0 for other sections.
    pub gpa: U64,
    /// Bytes of the content.
    pub len: U64,
    /// Digest of the content.
    pub digest: [u8; 32],
    /// UTF-8 followed by zeros.
    pub name: [u8; 56],
}

impl FirmwareRecordSection {
    /// [`FirmwareRecordSection::kind`]: a part of the firmware image.
    pub const IMAGE_PART: u32 = 1;
    /// [`FirmwareRecordSection::kind`]: the machine's description, to compare another machine with.
    pub const PLATFORM: u32 = 2;
    /// [`FirmwareRecordSection::kind`]: something the firmware was given when it started.
    pub const PINNED: u32 = 3;
}

/// What the file under [`FileId::HIBERNATION_FIRMWARE`] (or
/// [`FileId::PROPOSED_HIBERNATION_FIRMWARE`]) turns out to be.
///
/// Implementations disagree about the numbers 19 and 20, so this goes by content and length only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirmwareFileKind {
    /// A [header](FirmwareRecordHeader) and, by the length, all that it announces.
    Record,
    /// A header that is damaged, or does not fit the length of the file.
    DamagedRecord,
    /// No header; by its length or its first bytes a bare firmware image.
    RawImage,
    /// Something else: the state of a virtual TPM, say. Not to be run as firmware.
    Other,
}

impl FirmwareFileKind {
    /// The lengths firmware images and firmware regions are known to have: x86_64 image and measured
    /// region, aarch64 image and measured region.
    const RAW_LENGTHS: [u64; 4] = [0x60_0000, 0x70_9000, 0x80_0000, 0x82_4000];

    /// Classifies a file of `file_len` bytes that starts with `prefix`
    /// ([`FIRMWARE_RECORD_HEADER_LEN`] bytes, or the whole file if it is shorter).
    pub fn classify(file_len: u64, prefix: &[u8]) -> Self {
        if prefix.starts_with(&FirmwareRecordHeader::MAGIC) {
            return match FirmwareRecordHeader::read_from_prefix(prefix) {
                Ok((header, _)) if header.is_valid() && header.record_len.get() == file_len => {
                    Self::Record
                }
                _ => Self::DamagedRecord,
            };
        }
        // A firmware volume has this signature 40 bytes in (PI specification, volume 3).
        let volume = prefix.get(40..44) == Some(b"_FVH");
        if Self::RAW_LENGTHS.contains(&file_len)
            || (volume && file_len >= 1 << 20 && file_len.is_multiple_of(4096))
        {
            Self::RawImage
        } else {
            Self::Other
        }
    }

    /// Whether `id` is one whose content this classifies.
    pub fn applies_to(id: FileId) -> bool {
        id == FileId::HIBERNATION_FIRMWARE || id == FileId::PROPOSED_HIBERNATION_FIRMWARE
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    fn header(record_len: u64) -> FirmwareRecordHeader {
        let mut header = FirmwareRecordHeader::read_from_bytes(&[0; 256]).unwrap();
        header.magic = FirmwareRecordHeader::MAGIC;
        header.version = 1.into();
        header.header_len = 256.into();
        header.record_len = record_len.into();
        header.crc = header.expected_crc().into();
        header
    }

    #[test]
    fn layout() {
        use core::mem::offset_of;
        assert_eq!(
            size_of::<FirmwareRecordHeader>(),
            FIRMWARE_RECORD_HEADER_LEN
        );
        assert_eq!(
            size_of::<FirmwareRecordSection>(),
            FIRMWARE_RECORD_SECTION_LEN
        );
        assert_eq!(offset_of!(FirmwareRecordHeader, load_gpa), 24);
        assert_eq!(offset_of!(FirmwareRecordHeader, image_id), 64);
        assert_eq!(offset_of!(FirmwareRecordHeader, image_digest), 88);
        assert_eq!(offset_of!(FirmwareRecordHeader, table_digest), 152);
        assert_eq!(offset_of!(FirmwareRecordHeader, crc), 248);
        assert_eq!(offset_of!(FirmwareRecordSection, digest), 24);
    }

    #[test]
    fn tokens_in_words() {
        let words = |raw| HibernationToken(raw).to_string();
        assert_eq!(words(0), "not hibernated");
        assert_eq!(words(1), "hibernated, no firmware image stored");
        assert_eq!(words(u64::MAX), "hibernated, firmware image stored");
        assert_eq!(words(0x0109), "hibernated under firmware 1.9");
        assert_eq!(words(0x1_0000), "unknown token 0x10000");
        assert_eq!(HibernationToken::from_bytes(&[1, 0, 0, 0]), None);
        let token = HibernationToken::from_bytes(&[9, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(token, Some(HibernationToken(0x0109)));
    }

    #[test]
    fn a_tpm_blob_is_no_firmware() {
        assert_eq!(
            FirmwareFileKind::classify(32768, &[0x5a; 256]),
            FirmwareFileKind::Other
        );
        assert_eq!(FirmwareFileKind::classify(0, &[]), FirmwareFileKind::Other);
    }

    #[test]
    fn images_are_known_by_header_or_by_length() {
        let header = header(4096);
        assert_eq!(
            FirmwareFileKind::classify(4096, header.as_bytes()),
            FirmwareFileKind::Record
        );
        assert_eq!(
            FirmwareFileKind::classify(4097, header.as_bytes()),
            FirmwareFileKind::DamagedRecord
        );
        let mut damaged = header;
        damaged.load_gpa = 1.into();
        assert_eq!(
            FirmwareFileKind::classify(4096, damaged.as_bytes()),
            FirmwareFileKind::DamagedRecord
        );
        assert_eq!(
            FirmwareFileKind::classify(6_291_456, &[0; 256]),
            FirmwareFileKind::RawImage
        );
    }
}
