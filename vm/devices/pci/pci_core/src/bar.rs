use crate::registers;
use std::ops::RangeInclusive;

/// A base address register (BAR): a range of memory or I/O ports of a function.
///
/// Sizes are powers of two, in bytes or ports.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Bar {
    /// Memory below 4 GiB, 16 bytes or more, not prefetchable.
    Memory32 {
        /// The size in bytes.
        size: u32,
    },
    /// Memory at any address, 16 bytes or more. It also uses the next register.
    Memory64 {
        /// The size in bytes.
        size: u64,
        /// Reads have no side effects, and bytes of writes may be merged.
        prefetchable: bool,
    },
    /// I/O ports, 4 to 256.
    Io {
        /// The number of ports.
        size: u16,
    },
}

const SPACE_IO: u32 = 1 << 0;
const TYPE_64: u32 = 2 << 1;
const PREFETCHABLE: u32 = 1 << 3;

impl Bar {
    pub(crate) fn size(&self) -> u64 {
        match *self {
            Self::Memory32 { size } => size.into(),
            Self::Memory64 { size, .. } => size,
            Self::Io { size } => size.into(),
        }
    }

    pub(crate) fn has_valid_size(&self) -> bool {
        let limits = match self {
            Self::Memory32 { .. } => 16..=1 << 31,
            Self::Memory64 { .. } => 16..=1 << 63,
            Self::Io { .. } => 4..=256,
        };
        self.size().is_power_of_two() && limits.contains(&self.size())
    }

    /// The number of registers that it uses.
    pub(crate) fn registers(&self) -> usize {
        match self {
            Self::Memory32 { .. } | Self::Io { .. } => 1,
            Self::Memory64 { .. } => 2,
        }
    }

    /// The low bits of the register, which encode its kind.
    pub(crate) fn kind_bits(&self) -> u32 {
        match *self {
            Self::Memory32 { .. } => 0,
            Self::Memory64 { prefetchable, .. } => {
                TYPE_64 | if prefetchable { PREFETCHABLE } else { 0 }
            }
            Self::Io { .. } => SPACE_IO,
        }
    }

    /// The writable address bits of both registers. Guests determine the size by writing ones to all.
    pub(crate) fn address_bits(&self) -> u64 {
        let bits = !(self.size() - 1);
        match self {
            Self::Memory32 { .. } | Self::Io { .. } => bits & 0xffff_ffff,
            Self::Memory64 { .. } => bits,
        }
    }

    /// The range that it decodes with `low` and `high` in its registers.
    ///
    /// Address 0 means unassigned, because firmware and kernels enable decoding of functions with BARs to which
    /// they assigned no address.
    pub(crate) fn window(&self, command: u32, low: u32, high: u32) -> Option<Window> {
        let registers = u64::from(high) << 32 | u64::from(low);
        let base = registers & self.address_bits();
        if base == 0 {
            return None;
        }
        // No overflow: the base is a multiple of the size.
        let last = base + (self.size() - 1);
        match self {
            Self::Memory32 { .. } | Self::Memory64 { .. } => {
                (command & registers::MEMORY_ENABLE != 0).then_some(Window::Memory(base..=last))
            }
            Self::Io { .. } if command & registers::IO_ENABLE != 0 => {
                let (base, last) = (u16::try_from(base).ok()?, u16::try_from(last).ok()?);
                Some(Window::Ports(base..=last))
            }
            Self::Io { .. } => None,
        }
    }
}

/// The addresses that a BAR decodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Window {
    Memory(RangeInclusive<u64>),
    Ports(RangeInclusive<u16>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_within_limits() {
        let memory32 = |size| Bar::Memory32 { size }.has_valid_size();
        assert!(memory32(16) && memory32(1 << 31));
        assert!(!memory32(0) && !memory32(8) && !memory32(48));
        let memory64 = |size| {
            let prefetchable = false;
            Bar::Memory64 { size, prefetchable }.has_valid_size()
        };
        assert!(memory64(16) && memory64(1 << 63));
        assert!(!memory64(0) && !memory64((1 << 40) + 1));
        let io = |size| Bar::Io { size }.has_valid_size();
        assert!(io(4) && io(256));
        assert!(!io(2) && !io(512) && !io(24));
    }

    #[test]
    fn the_last_window_ends_at_the_end_of_the_address_space() {
        let bar = Bar::Memory64 {
            size: 1 << 63,
            prefetchable: true,
        };
        let window = bar.window(registers::MEMORY_ENABLE, u32::MAX, u32::MAX);
        assert_eq!(window, Some(Window::Memory(1 << 63..=u64::MAX)));
    }

    #[test]
    fn ports_end_at_64_kib() {
        let bar = Bar::Io { size: 16 };
        let window = |low| bar.window(registers::IO_ENABLE, low, 0);
        assert_eq!(window(0xfff1), Some(Window::Ports(0xfff0..=0xffff)));
        assert_eq!(window(0x1_0001), None);
        assert_eq!(window(0x0001), None, "unassigned");
    }
}
