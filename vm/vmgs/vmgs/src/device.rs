//! The device that holds a store.

mod file;
mod memory;
mod staged;
mod writeback;

pub use file::FileDevice;
pub use memory::MemoryDevice;
pub use staged::StagedDevice;

use crate::error::Error;
use std::io;
use std::path::Path;
use vmgs_format::BLOCK_SIZE;

/// A disk. Offsets and lengths are multiples of its sector size.
///
/// Writes may be cached, and are durable only when a later [`flush`](BlockDevice::flush) returns. Cached
/// writes may reach the medium in any order, and a crash may tear a write, even within a sector.
pub trait BlockDevice: Send {
    /// Sector size in bytes: 512 or 4096.
    fn sector_size(&self) -> u32;
    /// Number of sectors.
    fn sector_count(&self) -> u64;
    /// Whether the device refuses writes.
    fn is_read_only(&self) -> bool {
        false
    }
    /// Fills `buf` with the bytes from `offset` on.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes `buf` at `offset`.
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Makes all completed writes durable. If this fails, none of the writes since the last flush count as durable,
    /// even if reading returns them and a later flush succeeds: the operating system may have dropped them.
    fn flush(&mut self) -> io::Result<()>;
    /// Gets all the space of the device from what holds it, so that no later write fails for want of space.
    fn allocate(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Where the next bytes at or after `offset` are that may not be zero; `None` if there are none. For files with holes.
    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
    /// The file that is the device, for messages.
    fn path(&self) -> Option<&Path> {
        None
    }
}

/// The size of a device that can hold a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) sector_size: u32,
    /// Length of the usable part in bytes, at most 16 TiB.
    pub(crate) len: u64,
    /// Number of whole blocks; block numbers have 32 bits.
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

    /// Byte offset of header `slot` (0 or 1).
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
    fn devices_with_invalid_sizes_are_refused() {
        for (size, count) in [(0, 100), (513, 100), (8192, 100), (512, 0), (512, 15)] {
            assert!(Geometry::of(&Fake(size, count)).is_err(), "{size} {count}");
        }
        assert!(Geometry::of(&Fake(4096, u64::MAX)).is_err());
    }

    #[test]
    fn more_than_sixteen_tebibytes_are_truncated() {
        let geometry = Geometry::of(&Fake(4096, 1 << 40)).unwrap();
        assert_eq!(geometry.blocks, u32::MAX);
        assert_eq!(geometry.len, 1 << 44);
    }

    #[test]
    fn a_partial_block_at_the_end_is_not_used() {
        assert_eq!(Geometry::of(&Fake(512, 33)).unwrap().blocks, 4);
    }
}
