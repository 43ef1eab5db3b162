use uuid::Uuid;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U16;
use zerocopy::big_endian::U32;
use zerocopy::big_endian::U64;

/// Bytes in a footer; also the granularity of disk sizes.
pub const FOOTER_LEN: usize = 512;

/// The first bytes of every VHD footer.
const COOKIE: [u8; 8] = *b"conectix";
/// The format version that is written. The major version is the upper half; a reader accepts any minor version.
const VERSION_1_0: u32 = 0x0001_0000;
/// Disk types.
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;

/// What the footer of a fixed VHD says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedVhd {
    /// The size of the disk in bytes.
    pub size: u64,
    /// The disk's unique ID, a GUID in mixed-endian byte order in the file.
    pub id: Uuid,
}

/// Why bytes are not the footer of a usable fixed VHD.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// The bytes are not a VHD footer.
    #[error("there is no VHD footer at the end of the file")]
    Missing,
    /// The footer is damaged.
    #[error("the VHD footer is corrupt: its checksum is {found:#x}, expected {expected:#x}")]
    Checksum {
        /// The checksum in the footer.
        found: u32,
        /// The checksum of the footer's bytes.
        expected: u32,
    },
    /// The format version is not 1.x.
    #[error("VHD version {major}.{minor} is not supported, only version 1")]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// The disk is not a fixed one.
    #[error(
        "a VHD of type {disk_type}{} is not supported, only a fixed one \
         (`qemu-img convert -O vpc -o subformat=fixed` makes one)",
        type_name(*disk_type)
    )]
    NotFixed {
        /// The type in the footer.
        disk_type: u32,
    },
    /// The disk size in the footer does not fit the file.
    #[error(
        "the VHD footer says that the disk has {size} bytes, but the file has {available} bytes before the footer"
    )]
    Size {
        /// The disk size in the footer, in bytes.
        size: u64,
        /// Bytes in the file before the footer.
        available: u64,
    },
}

fn type_name(disk_type: u32) -> &'static str {
    match disk_type {
        DYNAMIC => " (dynamic)",
        DIFFERENCING => " (differencing)",
        _ => "",
    }
}

/// The layout of the footer. All integers are big-endian.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Footer {
    cookie: [u8; 8],
    /// 2: a bit that is always set.
    features: U32,
    format_version: U32,
    /// All ones for a fixed disk.
    data_offset: U64,
    /// Seconds since 2000-01-01 UTC; written 0.
    time_stamp: U32,
    /// Written 0.
    creator_application: U32,
    /// Written as 10.0.
    creator_version: U32,
    /// Written 0.
    creator_host_os: U32,
    /// Bytes of the disk when it was created.
    original_size: U64,
    /// Bytes of the disk.
    current_size: U64,
    /// Cylinders; written 0.
    cylinders: U16,
    /// Heads; written 0.
    heads: u8,
    /// Sectors per track; written 0.
    sectors_per_track: u8,
    disk_type: U32,
    checksum: U32,
    unique_id: [u8; 16],
    /// Written 0.
    saved_state: u8,
    /// Written 0.
    reserved: [u8; 427],
}

const _: () = assert!(size_of::<Footer>() == FOOTER_LEN);

impl Footer {
    /// The one's complement of the sum of all bytes, with the checksum's own bytes taken as zero.
    fn expected_checksum(&self) -> u32 {
        let sum = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b)).sum::<u32>();
        // 512 bytes sum to less than 2^17.
        !(sum(self.as_bytes()) - sum(self.checksum.as_bytes()))
    }
}

/// Whether `bytes`, the last of a file, are the footer of a VHD of any type.
pub fn is_footer(bytes: &[u8; FOOTER_LEN]) -> bool {
    bytes.starts_with(&COOKIE)
}

impl FixedVhd {
    /// Parses `footer`, the last bytes of a file with `available` bytes before it.
    pub fn parse(footer: &[u8; FOOTER_LEN], available: u64) -> Result<Self, FooterError> {
        if !is_footer(footer) {
            return Err(FooterError::Missing);
        }
        let footer: Footer = zerocopy::transmute!(*footer);
        let (found, expected) = (footer.checksum.get(), footer.expected_checksum());
        if found != expected {
            return Err(FooterError::Checksum { found, expected });
        }
        let version = footer.format_version.get();
        if version >> 16 != VERSION_1_0 >> 16 {
            let (major, minor) = ((version >> 16) as u16, version as u16);
            return Err(FooterError::Version { major, minor });
        }
        let disk_type = footer.disk_type.get();
        if disk_type != FIXED {
            return Err(FooterError::NotFixed { disk_type });
        }
        let size = footer.current_size.get();
        if size > available || !size.is_multiple_of(FOOTER_LEN as u64) {
            return Err(FooterError::Size { size, available });
        }
        let id = Uuid::from_bytes_le(footer.unique_id);
        Ok(Self { size, id })
    }

    /// Builds the footer.
    pub fn footer(&self) -> [u8; FOOTER_LEN] {
        let mut footer = Footer {
            cookie: COOKIE,
            features: 2.into(),
            format_version: VERSION_1_0.into(),
            data_offset: u64::MAX.into(),
            time_stamp: 0.into(),
            creator_application: 0.into(),
            creator_version: 0x000a_0000.into(),
            creator_host_os: 0.into(),
            original_size: self.size.into(),
            current_size: self.size.into(),
            cylinders: 0.into(),
            heads: 0,
            sectors_per_track: 0,
            disk_type: FIXED.into(),
            checksum: 0.into(),
            unique_id: self.id.to_bytes_le(),
            saved_state: 0,
            reserved: [0; 427],
        };
        footer.checksum = footer.expected_checksum().into();
        zerocopy::transmute!(footer)
    }
}

#[cfg(test)]
#[path = "footer_test.rs"]
mod tests;
