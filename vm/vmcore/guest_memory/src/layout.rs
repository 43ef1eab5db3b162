//! The guest-physical address ranges of RAM and the low MMIO gap.

use std::fmt;

const FOUR_GIB: u64 = 1 << 32;
const PAGE: u64 = 4096;

/// The smallest guest RAM that can be configured, in bytes.
pub const MIN_RAM: u64 = 32 << 20;

/// A range of guest-physical addresses: start inclusive, end exclusive, both page-aligned.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// First byte after the range.
    pub end: u64,
}

impl MemoryRange {
    /// The range's length in bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether the range is empty.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether `gpa` is in the range.
    pub const fn contains(&self, gpa: u64) -> bool {
        self.start <= gpa && gpa < self.end
    }
}

impl fmt::Display for MemoryRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}

/// Why a memory layout is impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryLayoutError {
    /// The size is less than [`MIN_RAM`].
    #[error("guest memory of {size} bytes is less than the minimum of {MIN_RAM} bytes (32 MiB)")]
    TooSmall {
        /// The size asked for, in bytes.
        size: u64,
    },
    /// The size is not a multiple of the page size.
    #[error("guest memory of {size} bytes is not a multiple of the page size")]
    Unaligned {
        /// The size asked for, in bytes.
        size: u64,
    },
    /// RAM would extend past the guest-physical address space.
    #[error(
        "guest memory of {size} bytes ends at {end:#x}, past the {bits}-bit physical addresses"
    )]
    TooLarge {
        /// The size asked for, in bytes.
        size: u64,
        /// End of RAM.
        end: u64,
        /// The width of a guest-physical address.
        bits: u8,
    },
}

/// The guest-physical address map: RAM below the low MMIO gap and, if there is more, from 4 GiB up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLayout {
    ram: Vec<MemoryRange>,
    low_mmio: MemoryRange,
}

impl MemoryLayout {
    /// The default start of the low MMIO gap.
    pub const DEFAULT_LOW_MMIO_START: u64 = 0xc000_0000;

    /// Lays out `size` bytes of RAM around a gap from `low_mmio_start` to 4 GiB, in an address space of
    /// `address_bits` bits.
    pub fn new(
        size: u64,
        low_mmio_start: u64,
        address_bits: u8,
    ) -> Result<Self, MemoryLayoutError> {
        if size < MIN_RAM {
            return Err(MemoryLayoutError::TooSmall { size });
        }
        if !size.is_multiple_of(PAGE) {
            return Err(MemoryLayoutError::Unaligned { size });
        }
        let low_mmio = MemoryRange {
            start: low_mmio_start,
            end: FOUR_GIB,
        };
        let low = size.min(low_mmio.start);
        let mut ram = vec![MemoryRange { start: 0, end: low }];
        if size > low {
            let end = FOUR_GIB.saturating_add(size - low);
            if end > 1u64.checked_shl(address_bits.into()).unwrap_or(u64::MAX) {
                return Err(MemoryLayoutError::TooLarge {
                    size,
                    end,
                    bits: address_bits,
                });
            }
            ram.push(MemoryRange {
                start: FOUR_GIB,
                end,
            });
        }
        Ok(Self { ram, low_mmio })
    }

    /// The RAM ranges, ascending.
    pub fn ram(&self) -> &[MemoryRange] {
        &self.ram
    }

    /// Bytes of RAM.
    pub fn ram_size(&self) -> u64 {
        self.ram.iter().map(MemoryRange::len).sum()
    }

    /// The MMIO gap below 4 GiB.
    pub fn low_mmio(&self) -> MemoryRange {
        self.low_mmio
    }

    /// The first address after all RAM, at least 4 GiB.
    pub fn end(&self) -> u64 {
        self.ram.last().map_or(0, |r| r.end).max(FOUR_GIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_past_the_gap_starts_at_4_gib() {
        let gap = MemoryLayout::DEFAULT_LOW_MMIO_START;
        let small = MemoryLayout::new(512 << 20, gap, 46).unwrap();
        assert_eq!(
            small.ram(),
            [MemoryRange {
                start: 0,
                end: 512 << 20
            }]
        );
        let large = MemoryLayout::new(65 << 30, gap, 46).unwrap();
        assert_eq!(large.ram_size(), 65 << 30);
        assert_eq!(large.ram()[0].end, gap);
        assert_eq!(large.ram()[1].start, FOUR_GIB);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let gap = MemoryLayout::DEFAULT_LOW_MMIO_START;
        assert!(matches!(
            MemoryLayout::new(16 << 20, gap, 46),
            Err(MemoryLayoutError::TooSmall { .. })
        ));
        assert!(matches!(
            MemoryLayout::new((64 << 20) + 1, gap, 46),
            Err(MemoryLayoutError::Unaligned { .. })
        ));
        assert!(matches!(
            MemoryLayout::new(1 << 40, gap, 36),
            Err(MemoryLayoutError::TooLarge { bits: 36, .. })
        ));
    }
}
