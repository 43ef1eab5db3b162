//! Hibernation state in a store: the token and the firmware record.

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

/// Length in bytes of the hibernation token. A file of another length is corrupt.
pub const HIBERNATION_TOKEN_LEN: usize = 8;
/// The minimum size in bytes of a store that holds a firmware image. It has room for two copies of the
/// image, because a file is replaced by writing the new content beside the old, and for all other files.
pub const HIBERNATION_MIN_STORE_SIZE: u64 = 32 << 20;

/// The content of [`FileId::HIBERNATION_TOKEN`], a little-endian `u64`. A missing file is equivalent to
/// [`HibernationToken::NONE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HibernationToken(pub u64);

impl HibernationToken {
    /// The guest was shut down or reset.
    pub const NONE: Self = Self(0);
    /// The guest hibernated; its firmware image was not stored.
    pub const HIBERNATED: Self = Self(1);
    /// The guest hibernated; its firmware image is in [`FileId::HIBERNATION_FIRMWARE`].
    pub const HIBERNATED_WITH_IMAGE: Self = Self(u64::MAX);
    /// The guest began to hibernate, and its firmware image is in [`FileId::HIBERNATION_FIRMWARE`]. Whether it
    /// finished is not known. Specific to this implementation; as text `HIBPREP1`.
    pub const PREPARING: Self = Self(u64::from_le_bytes(*b"HIBPREP1"));

    /// Decodes the content of the file; none if its length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(u64::from_le_bytes(bytes.try_into().ok()?)))
    }

    /// Encodes the content of the file.
    pub fn to_bytes(self) -> [u8; HIBERNATION_TOKEN_LEN] {
        self.0.to_le_bytes()
    }

    /// The major and minor version of the firmware, if the token holds one (2 to 0xFFFF). The value 1 is
    /// [`HibernationToken::HIBERNATED`], not a version.
    pub fn firmware_version(self) -> Option<(u8, u8)> {
        match self.0 {
            2..=0xffff => Some(((self.0 >> 8) as u8, self.0 as u8)),
            _ => None,
        }
    }
}

/// The meaning of the token in words.
impl fmt::Display for HibernationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.firmware_version()) {
            (Self::NONE, _) => f.write_str("not hibernated"),
            (Self::HIBERNATED, _) => f.write_str("hibernated, no firmware image stored"),
            (Self::HIBERNATED_WITH_IMAGE, _) => f.write_str("hibernated, firmware image stored"),
            (Self::PREPARING, _) => f.write_str("may be hibernated, firmware image stored"),
            (_, Some((major, minor))) => write!(f, "hibernated under firmware {major}.{minor}"),
            _ => write!(f, "unknown token {:#x}", self.0),
        }
    }
}

/// Length in bytes of a [`FirmwareRecordHeader`].
pub const FIRMWARE_RECORD_HEADER_LEN: usize = 256;
/// Length in bytes of a [`FirmwareRecordSection`].
pub const FIRMWARE_RECORD_SECTION_LEN: usize = 112;

/// The header of [`FileId::HIBERNATION_FIRMWARE`], the record of the firmware that a guest ran on and of
/// the data that the machine passed to the firmware.
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
    /// Version of the record: 1.
    pub version: U16,
    /// [`FIRMWARE_RECORD_HEADER_LEN`].
    pub header_len: U16,
    /// No flags are defined; a reader rejects unknown flags.
    pub flags: U32,
    /// 1 for x86_64, 2 for aarch64.
    pub architecture: U32,
    /// 1 for SHA-256, everywhere in the record.
    pub digest_algorithm: U32,
    /// GPA of the first part of the image.
    pub load_gpa: U64,
    /// Length in bytes of all parts of the image together.
    pub image_len: U64,
    /// How the entry point is found: one of the `ENTRY_` constants.
    pub entry_rule: U32,
    /// Number of entries in the section table.
    pub section_count: U32,
    /// GPA of the first instruction when the image was captured.
    pub entry_gpa: U64,
    /// Length in bytes of the whole record, which is the length of the file.
    pub record_len: U64,
    /// A random GUID, new for each stored record.
    pub image_id: [u8; 16],
    /// Time of capture, in units of 100 ns since 1601-01-01 UTC.
    pub capture_time: U64,
    /// Digest of the image if it has one part, else of the digests of its parts.
    pub image_digest: [u8; 32],
    /// Digest of the description of the machine, which is in the section of kind
    /// [`FirmwareRecordSection::PLATFORM`].
    pub platform_digest: [u8; 32],
    /// Digest of the section table.
    pub table_digest: [u8; 32],
    /// Version string of the firmware, UTF-8 padded with zeros; empty if unknown.
    pub firmware_version: [u8; 64],
    /// CRC-32 (ISO-HDLC) of the bytes before this field.
    pub crc: U32,
    /// Zero.
    pub reserved: U32,
}

impl FirmwareRecordHeader {
    /// The magic of a record.
    pub const MAGIC: [u8; 8] = *b"HIBFWIMG";
    /// The version that this implementation writes.
    pub const VERSION: u16 = 1;
    /// [`FirmwareRecordHeader::architecture`] of x86_64.
    pub const X86_64: u32 = 1;
    /// [`FirmwareRecordHeader::architecture`] of aarch64.
    pub const AARCH64: u32 = 2;
    /// [`FirmwareRecordHeader::digest_algorithm`] SHA-256.
    pub const SHA256: u32 = 1;
    /// [`FirmwareRecordHeader::entry_rule`]: the x86 reset vector, 16 bytes below 4 GiB.
    pub const ENTRY_RESET_VECTOR: u32 = 1;
    /// [`FirmwareRecordHeader::entry_rule`]: the entry point of the security core (SEC) in the image (PI
    /// specification, volumes 1 and 3).
    pub const ENTRY_SEC_CORE: u32 = 2;
    /// [`FirmwareRecordHeader::entry_rule`]: a fixed address.
    pub const ENTRY_FIXED: u32 = 3;

    /// The value that [`FirmwareRecordHeader::crc`] must have.
    pub fn expected_crc(&self) -> u32 {
        let bytes = self.as_bytes();
        crc32fast::hash(&bytes[..core::mem::offset_of!(Self, crc)])
    }

    /// Whether magic, version, length, flags and CRC are valid. Does not validate the image.
    pub fn is_valid(&self) -> bool {
        self.magic == Self::MAGIC
            && self.version.get() == Self::VERSION
            && usize::from(self.header_len.get()) == FIRMWARE_RECORD_HEADER_LEN
            && self.flags.get() == 0
            && self.reserved.get() == 0
            && self.crc.get() == self.expected_crc()
    }
}

/// An entry in the section table of a record.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FirmwareRecordSection {
    /// Kind of the section: one of the constants.
    pub kind: U32,
    /// No flags are defined; a reader rejects unknown flags.
    pub flags: U32,
    /// GPA of a part of the image; 0 for other sections.
    pub gpa: U64,
    /// Length of the content in bytes.
    pub len: U64,
    /// Digest of the content.
    pub digest: [u8; 32],
    /// UTF-8 padded with zeros.
    pub name: [u8; 56],
}

impl FirmwareRecordSection {
    /// [`FirmwareRecordSection::kind`]: a part of the firmware image.
    pub const IMAGE_PART: u32 = 1;
    /// [`FirmwareRecordSection::kind`]: the description of the machine, for comparison with the machine
    /// that the guest resumes on.
    pub const PLATFORM: u32 = 2;
    /// [`FirmwareRecordSection::kind`]: data that the machine passed to the firmware at start.
    pub const PINNED: u32 = 3;
}

/// The kind of content of [`FileId::HIBERNATION_FIRMWARE`] or [`FileId::PROPOSED_HIBERNATION_FIRMWARE`].
///
/// Implementations use the ids 19 and 20 differently, so only the content and its length decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirmwareFileKind {
    /// A valid [header](FirmwareRecordHeader), and a file of the length that it states.
    Record,
    /// A header that is invalid, or states another length.
    DamagedRecord,
    /// No header, but the length or first bytes of a bare firmware image.
    RawImage,
    /// Something else, such as the state of a virtual TPM. Must not be run as firmware.
    Other,
}

impl FirmwareFileKind {
    /// Known lengths of firmware: x86_64 image and measured region, aarch64 image and measured region.
    const RAW_LENGTHS: [u64; 4] = [0x60_0000, 0x70_9000, 0x80_0000, 0x82_4000];

    /// Classifies a file of `file_len` bytes that starts with `prefix`
    /// (its first [`FIRMWARE_RECORD_HEADER_LEN`] bytes, or the whole file if it is shorter).
    pub fn classify(file_len: u64, prefix: &[u8]) -> Self {
        if prefix.starts_with(&FirmwareRecordHeader::MAGIC) {
            return match FirmwareRecordHeader::read_from_prefix(prefix) {
                Ok((header, _)) if header.is_valid() && header.record_len.get() == file_len => {
                    Self::Record
                }
                _ => Self::DamagedRecord,
            };
        }
        // The signature of a firmware volume is at offset 40 (PI specification, volume 3).
        let volume = prefix.get(40..44) == Some(b"_FVH");
        if Self::RAW_LENGTHS.contains(&file_len)
            || (volume && file_len >= 1 << 20 && file_len.is_multiple_of(4096))
        {
            Self::RawImage
        } else {
            Self::Other
        }
    }

    /// Whether `id` is one of the two ids whose content this type classifies. A
    /// [record](FileId::firmware_record_places) may have others.
    pub fn applies_to(id: FileId) -> bool {
        id == FileId::HIBERNATION_FIRMWARE || id == FileId::PROPOSED_HIBERNATION_FIRMWARE
    }
}

#[cfg(test)]
#[path = "hibernation_test.rs"]
mod tests;
