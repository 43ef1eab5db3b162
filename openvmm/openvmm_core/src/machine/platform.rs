//! Where things are: the machine has the layout of a Q35, whatever runs first on it.

use guest_memory::MemoryRange;
use std::ops::RangeInclusive;

/// The real-time clock's index port and interrupt.
pub(crate) const RTC_BASE: u16 = 0x70;
pub(crate) const RTC_IRQ: u8 = 8;
/// Where the century is in the CMOS.
pub(crate) const RTC_CENTURY: u8 = 0x32;

/// The power-management block; firmware for Q35 expects it here.
pub(crate) const PM_BASE: u16 = 0x600;
pub(crate) const SCI_IRQ: u8 = 9;
pub(crate) const PVPANIC_PORT: u16 = 0x505;
pub(crate) const KEYBOARD_IRQ: u8 = 1;

/// RAM below 4 GiB ends here at the latest.
pub(crate) const LOW_RAM_END: u64 = 0xb000_0000;
/// PCI configuration space in memory, 1 MiB for each bus.
pub(crate) const ECAM_BASE: u64 = 0xb000_0000;
/// PCI functions' memory below 4 GiB.
pub(crate) const PCI_LOW: MemoryRange = MemoryRange {
    start: 0xc000_0000,
    end: 0xfc00_0000,
};
/// PCI functions' I/O ports.
pub(crate) const PCI_IO: RangeInclusive<u16> = 0x6000..=0xffff;
/// The first of the eight lines that PCI interrupt pins go to.
pub(crate) const PCI_FIRST_GSI: u32 = 16;
/// The last PCI bus.
pub(crate) const PCI_LAST_BUS: u8 = 0;

/// PCI functions' memory above 4 GiB: as large as what firmware for Q35 chooses, 32 GiB, and aligned to its size above
/// the end of RAM. There is none if the processor cannot reach that far.
pub(crate) fn pci_high(ram_end: u64, address_bits: u8) -> Option<MemoryRange> {
    const SIZE: u64 = 32 << 30;
    let start = ram_end.max(1 << 32).checked_next_multiple_of(SIZE)?;
    let end = start.checked_add(SIZE)?;
    (end <= 1 << address_bits.min(52)).then_some(MemoryRange { start, end })
}

/// Ports that operating systems probe or write on every PC, and where this machine may have nothing: the diagnostic port
/// and its alternative as an I/O delay, VGA, port 0x92, the primary and secondary IDE, the CPU hot-plug block, (in split
/// mode) the PICs and the PIT, and COM1 to COM4. Accesses that no device answers are not logged.
pub(crate) const IGNORED: &[RangeInclusive<u16>] = &[
    0x80..=0x80,
    0x92..=0x92,
    0xed..=0xed,
    0x3b0..=0x3df,
    0x20..=0x21,
    0xa0..=0xa1,
    0xb2..=0xb3,
    0x402..=0x402,
    0x4d0..=0x4d1,
    0x40..=0x43,
    0x61..=0x61,
    0xcd8..=0xce3,
    0x3f8..=0x3ff,
    0x2f8..=0x2ff,
    0x3e8..=0x3ef,
    0x2e8..=0x2ef,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_window_is_above_ram_and_in_reach() {
        let window = pci_high(1 << 30, 40).unwrap();
        assert_eq!((window.start, window.end), (32 << 30, 64 << 30));
        let window = pci_high((70 << 30) + 0x1000, 40).unwrap();
        assert_eq!(window.start, 96 << 30);
        assert!(pci_high(1 << 30, 35).is_none());
        assert!(pci_high(u64::MAX, 52).is_none());
    }
}
