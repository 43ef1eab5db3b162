//! What a store lives on.

pub(crate) mod file;
pub(crate) mod memory;
mod writeback;

use crate::error::Error;
use std::io;
use vmgs_format::BLOCK_SIZE;

/// A disk. Offsets and lengths given to it are multiples of its sector size.
///
/// A write may be kept in a cache, and is durable only when a later [`flush`](BlockDevice::flush)
/// returns. Nothing is assumed about the order in which cached writes reach the medium, and a crash may
/// tear a write, even within a sector.
pub trait BlockDevice: Send {
    /// Bytes in a sector: 512 or 4096.
    fn sector_size(&self) -> u32;
    /// Sectors on the disk.
    fn sector_count(&self) -> u64;
    /// Whether writes are refused.
    fn is_read_only(&self) -> bool {
        false
    }
    /// Fills `buf` from byte `offset`.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes `buf` at byte `offset`.
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Makes everything written durable.
    fn flush(&mut self) -> io::Result<()>;
}

impl<T: BlockDevice + ?Sized> BlockDevice for Box<T> {
    fn sector_size(&self) -> u32 {
        (**self).sector_size()
    }
    fn sector_count(&self) -> u64 {
        (**self).sector_count()
    }
    fn is_read_only(&self) -> bool {
        (**self).is_read_only()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }
}

/// The sizes of a device that can hold a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) sector_size: u32,
    /// Bytes of the device, at most 16 TiB.
    pub(crate) len: u64,
    /// Whole blocks of the device, all of which a block number can name.
    pub(crate) blocks: u32,
}

impl Geometry {
    const MAX_LEN: u64 = (1 << 32) * BLOCK_SIZE as u64;

    pub(crate) fn of(device: &dyn BlockDevice) -> Result<Self, Error> {
        let (sector_size, sector_count) = (device.sector_size(), device.sector_count());
        let invalid = Error::Geometry {
            sector_size,
            sector_count,
        };
        if !matches!(sector_size, 512 | 4096) || sector_count == 0 {
            return Err(invalid);
        }
        let Some(len) = sector_count.checked_mul(u64::from(sector_size)) else {
            return Err(invalid);
        };
        let len = len.min(Self::MAX_LEN);
        if len < vmgs_format::HEADER_AREA_SIZE as u64 {
            return Err(invalid);
        }
        Ok(Self {
            sector_size,
            len,
            blocks: u32::try_from(len / u64::from(BLOCK_SIZE)).unwrap_or(u32::MAX),
        })
    }

    /// Where header `slot` (0 or 1) is.
    pub(crate) fn header_offset(&self, slot: usize) -> u64 {
        if slot == 0 {
            0
        } else {
            u64::from(self.sector_size)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(u32, u64);

    impl BlockDevice for Fake {
        fn sector_size(&self) -> u32 {
            self.0
        }
        fn sector_count(&self) -> u64 {
            self.1
        }
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
            unreachable!()
        }
        fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
            unreachable!()
        }
        fn flush(&mut self) -> io::Result<()> {
            unreachable!()
        }
    }

    #[test]
    fn impossible_devices_are_refused() {
        for (size, count) in [(0, 100), (513, 100), (8192, 100), (512, 0), (512, 15)] {
            assert!(Geometry::of(&Fake(size, count)).is_err(), "{size} {count}");
        }
        assert!(Geometry::of(&Fake(4096, u64::MAX)).is_err());
    }

    #[test]
    fn sixteen_tebibytes_do_not_wrap() {
        let geometry = Geometry::of(&Fake(4096, 1 << 40)).unwrap();
        assert_eq!(geometry.blocks, u32::MAX);
        assert_eq!(geometry.len, 1 << 44);
    }

    #[test]
    fn a_trailing_part_of_a_block_is_not_used() {
        assert_eq!(Geometry::of(&Fake(512, 33)).unwrap().blocks, 4);
    }
}
