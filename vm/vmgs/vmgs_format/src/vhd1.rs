//! The footer of a fixed virtual hard disk (Virtual Hard Disk Image Format Specification 1.0), which
//! Hyper-V and its tools expect at the end of a guest-state file. All integers are big-endian.

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::big_endian::U16;
use zerocopy::big_endian::U32;
use zerocopy::big_endian::U64;

/// Bytes in a [`Footer`]; also the granularity of file and disk sizes.
pub const FOOTER_LEN: usize = 512;

/// The footer, the last 512 bytes of the file.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Footer {
    /// [`Footer::COOKIE`].
    pub cookie: [u8; 8],
    /// 2: a bit that is always set.
    pub features: U32,
    /// [`Footer::FORMAT_VERSION`].
    pub format_version: U32,
    /// All ones for a fixed disk.
    pub data_offset: U64,
    /// Seconds since 2000-01-01 UTC; written 0.
    pub time_stamp: U32,
    /// Written 0.
    pub creator_application: U32,
    /// Written as 10.0.
    pub creator_version: U32,
    /// Written 0.
    pub creator_host_os: U32,
    /// Bytes of the disk when it was created.
    pub original_size: U64,
    /// Bytes of the disk.
    pub current_size: U64,
    /// Cylinders; written 0.
    pub cylinders: U16,
    /// Heads; written 0.
    pub heads: u8,
    /// Sectors per track; written 0.
    pub sectors_per_track: u8,
    /// [`Footer::FIXED`].
    pub disk_type: U32,
    /// [`Footer::expected_checksum`].
    pub checksum: U32,
    /// A GUID in mixed-endian byte order.
    pub unique_id: [u8; 16],
    /// Written 0.
    pub saved_state: u8,
    /// Written 0.
    pub reserved: [u8; 427],
}

impl Footer {
    /// What a footer starts with.
    pub const COOKIE: [u8; 8] = *b"conectix";
    /// The only format version.
    pub const FORMAT_VERSION: u32 = 0x0001_0000;
    /// [`Footer::disk_type`] of a fixed disk, the only one that can hold a store.
    pub const FIXED: u32 = 2;

    /// The footer of a fixed disk of `size` bytes.
    pub fn fixed(size: u64, unique_id: [u8; 16]) -> Self {
        let mut footer = Self {
            cookie: Self::COOKIE,
            features: 2.into(),
            format_version: Self::FORMAT_VERSION.into(),
            data_offset: u64::MAX.into(),
            time_stamp: 0.into(),
            creator_application: 0.into(),
            creator_version: 0x000a_0000.into(),
            creator_host_os: 0.into(),
            original_size: size.into(),
            current_size: size.into(),
            cylinders: 0.into(),
            heads: 0,
            sectors_per_track: 0,
            disk_type: Self::FIXED.into(),
            checksum: 0.into(),
            unique_id,
            saved_state: 0,
            reserved: [0; 427],
        };
        footer.checksum = footer.expected_checksum().into();
        footer
    }

    /// The one's complement of the sum of all bytes, the checksum's own taken as zero.
    pub fn expected_checksum(&self) -> u32 {
        let sum = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b)).sum::<u32>();
        // 512 bytes sum to less than 2^17.
        !(sum(self.as_bytes()) - sum(self.checksum.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn layout() {
        assert_eq!(size_of::<Footer>(), FOOTER_LEN);
        assert_eq!(offset_of!(Footer, current_size), 48);
        assert_eq!(offset_of!(Footer, disk_type), 60);
        assert_eq!(offset_of!(Footer, unique_id), 68);
    }

    #[test]
    fn known_checksums() {
        assert_eq!(Footer::fixed(4 << 20, [0; 16]).checksum.get(), 0xFFFF_F41B);
        assert_eq!(Footer::fixed(32 << 20, [0; 16]).checksum.get(), 0xFFFF_F497);
        assert_eq!(
            Footer::fixed(4 << 20, [0; 16]).as_bytes()[..8],
            *b"conectix"
        );
    }
}
