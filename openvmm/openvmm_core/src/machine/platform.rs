//! Where things are: RAM and PCI functions are where a Q35 has them, whatever runs first on the machine.

use super::view;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use openvmm_defs::config::VmConfig;
use platform_digest::MmioRange;
use std::ops::RangeInclusive;

const FOUR_GIB: u64 = 1 << 32;

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
/// PCI functions' memory below 4 GiB, unless firmware puts them elsewhere.
pub(crate) const PCI_LOW: MemoryRange = MemoryRange {
    start: 0xc000_0000,
    end: 0xfc00_0000,
};
/// PCI functions' I/O ports: all but the configuration ports. Besides BARs, they have the ports of the ISA bridge.
pub(crate) const PCI_IO: [RangeInclusive<u16>; 2] = [0x0..=0xcf7, 0xd00..=0xffff];
/// The first of the eight lines that PCI interrupt pins go to.
pub(crate) const PCI_FIRST_GSI: u32 = 16;
/// The last PCI bus.
pub(crate) const PCI_LAST_BUS: u8 = 0;

/// Granularity of the windows below and above 4 GiB.
const LOW_ALIGNMENT: u64 = 256 << 20;
const HIGH_ALIGNMENT: u64 = 32 << 30;

/// PCI functions' memory above 4 GiB: as large as what firmware for Q35 chooses at least, 32 GiB, and aligned to its size
/// above the end of RAM. There is none if the processor cannot reach that far.
pub(crate) fn pci_high(ram_end: u64, address_bits: u8) -> Option<MemoryRange> {
    let start = ram_end
        .max(1 << 32)
        .checked_next_multiple_of(HIGH_ALIGNMENT)?;
    let end = start.checked_add(HIGH_ALIGNMENT)?;
    (end <= 1 << address_bits.min(52)).then_some(MemoryRange { start, end })
}

/// Where PCI configuration space and functions are in memory.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct PciWindows {
    pub ecam: u64,
    pub low: MemoryRange,
    pub high: Option<MemoryRange>,
}

impl PciWindows {
    /// At reset, and for a guest without firmware, which places the functions itself.
    pub(crate) fn at_reset(layout: &MemoryLayout, address_bits: u8) -> Self {
        let ram_end = layout.ram().last().map_or(0, |ram| ram.end);
        Self {
            ecam: ECAM_BASE,
            low: PCI_LOW,
            high: pci_high(ram_end, address_bits),
        }
    }

    /// After firmware has set PCIEXBAR to `ecam` and memory BARs to `bars` (ascending). A window begins at the lowest BAR,
    /// rounded down, and is as large as the firmware's: that below 4 GiB up to configuration space or the chipset's
    /// devices, that above 4 GiB of 32 GiB or a multiple.
    ///
    /// Where firmware has put nothing, or where there is RAM, the windows stay as they are at reset.
    pub(crate) fn programmed(
        self,
        layout: &MemoryLayout,
        ecam: Option<&RangeInclusive<u64>>,
        bars: &[u64],
    ) -> Self {
        let low_ram_end = layout.ram().first().map_or(0, |ram| ram.end);
        let ecam = ecam.filter(|ecam| *ecam.start() >= low_ram_end && *ecam.end() < FOUR_GIB);
        let low_bars = bars
            .iter()
            .filter(|&&bar| bar >= low_ram_end && bar < PCI_LOW.end);
        let low = low_bars.min().map(|&bar| {
            let start = (bar - bar % LOW_ALIGNMENT).max(low_ram_end);
            let limit = ecam.map(|ecam| *ecam.start()).filter(|&base| base > bar);
            // The BAR is below it, and not below `start`.
            let end = limit.unwrap_or(PCI_LOW.end).min(PCI_LOW.end);
            MemoryRange { start, end }
        });
        let ram_end = layout.ram().last().map_or(0, |ram| ram.end).max(FOUR_GIB);
        let mut high_bars = bars.iter().filter(|&&bar| bar >= ram_end);
        let high = high_bars.next().and_then(|&first| {
            let last = high_bars.next_back().unwrap_or(&first);
            let start = (first - first % HIGH_ALIGNMENT).max(ram_end);
            let end = (last + 1).checked_next_multiple_of(HIGH_ALIGNMENT)?;
            Some(MemoryRange { start, end })
        });
        Self {
            ecam: ecam.map_or(self.ecam, |ecam| *ecam.start()),
            low: low.unwrap_or_else(|| without(self.low, ecam)),
            // The tables have this window or not; that does not change.
            high: self.high.map(|at_reset| high.unwrap_or(at_reset)),
        }
    }
}

/// The window without configuration space, which firmware may have moved into it: the part before it if there is one.
fn without(window: MemoryRange, ecam: Option<&RangeInclusive<u64>>) -> MemoryRange {
    let Some(ecam) =
        ecam.filter(|ecam| window.contains(*ecam.start()) || window.contains(*ecam.end()))
    else {
        return window;
    };
    if *ecam.start() > window.start {
        let end = *ecam.start();
        MemoryRange { end, ..window }
    } else {
        let start = *ecam.end() + 1;
        MemoryRange { start, ..window }
    }
}

/// Where things are in a generation-2 VM of Hyper-V, whose firmware makes the ACPI tables that say so.
pub(crate) mod generation_2 {
    use guest_memory::MemoryRange;

    /// The power-management block.
    pub(crate) const PM_BASE: u16 = 0x400;
    /// The register that resets the machine, and the value to write.
    pub(crate) const RESET_PORT: u16 = 0x433;
    pub(crate) const RESET: u8 = 1;
    /// The chipset's devices below 4 GiB: I/O APIC, local APICs, and what the firmware allocates itself.
    pub(crate) const LOW_GAP: MemoryRange = MemoryRange {
        start: 0xf800_0000,
        end: super::FOUR_GIB,
    };
    /// The chipset's devices above 4 GiB: none.
    pub(crate) const HIGH_GAP: MemoryRange = MemoryRange {
        start: super::FOUR_GIB,
        end: super::FOUR_GIB,
    };
    /// PCI functions' memory below 4 GiB.
    pub(crate) const PCI_LOW: MemoryRange = MemoryRange {
        start: super::PCI_LOW.start,
        end: LOW_GAP.start,
    };
}

/// Where a generation-2 VM has no RAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generation2Ranges {
    pub low_gap: MemoryRange,
    pub high_gap: MemoryRange,
    /// Where PCI functions are; `None` if there are none.
    pub pci: Option<PciWindows>,
}

impl Generation2Ranges {
    pub(crate) fn new(config: &VmConfig, layout: &MemoryLayout, address_bits: u8) -> Self {
        let windows = PciWindows {
            low: generation_2::PCI_LOW,
            ..PciWindows::at_reset(layout, address_bits)
        };
        Self {
            low_gap: generation_2::LOW_GAP,
            high_gap: generation_2::HIGH_GAP,
            pci: (!config.pci_devices.is_empty()).then_some(windows),
        }
    }

    /// The ranges that are not empty, by name.
    pub(crate) fn mmio(&self) -> Vec<MmioRange> {
        let mut ranges = vec![view::mmio_range("chipset32", &self.low_gap)];
        ranges.extend(self.pci.iter().flat_map(view::pci_ranges));
        ranges
    }
}

/// Ports that operating systems probe or write on every PC, and where this machine may have nothing: the diagnostic port
/// and its alternative as an I/O delay, VGA, port 0x92, the primary and secondary IDE, the CPU hot-plug block, (in split
/// mode) the PICs and the PIT, COM1 to COM4, the ISA DMA controllers' page register and the game port. Accesses that no device answers are not logged.
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
    0x87..=0x87,
    0x201..=0x201,
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

    const GIB: u64 = 1 << 30;

    fn layout(ram: u64) -> MemoryLayout {
        MemoryLayout::new(ram, LOW_RAM_END, 46).unwrap()
    }

    /// The windows, each as start and end, after firmware has programmed these addresses.
    fn programmed(ram: u64, ecam: u64, bars: &[u64]) -> [u64; 5] {
        let layout = layout(ram);
        let ecam = ecam..=ecam + (256 << 20) - 1;
        let windows = PciWindows::at_reset(&layout, 46).programmed(&layout, Some(&ecam), bars);
        let high = windows.high.unwrap();
        [
            windows.ecam,
            windows.low.start,
            windows.low.end,
            high.start,
            high.end,
        ]
    }

    #[test]
    fn windows_follow_the_firmware() {
        const UNTIL_RESET: [u64; 5] = [0xb000_0000, 0xc000_0000, 0xfc00_0000, 8 << 32, 16 << 32];
        // Debian 12's OVMF on 40 bits, and on 36 bits or less.
        let high = 0xe0_0000_0000;
        assert_eq!(
            programmed(
                GIB / 2,
                0xb000_0000,
                &[0xc000_0000, 0xc000_1000, high, high + 0x4000]
            ),
            [0xb000_0000, 0xc000_0000, 0xfc00_0000, high, high + 32 * GIB]
        );
        assert_eq!(
            programmed(GIB / 2, 0xb000_0000, &[0xc000_0000, 8 << 32]),
            UNTIL_RESET
        );
        // Debian 13's.
        assert_eq!(
            programmed(GIB / 2, 0xe000_0000, &[0x8000_0000, high]),
            [0xe000_0000, 0x8000_0000, 0xe000_0000, high, high + 32 * GIB]
        );
        // Not at the start of an aligned block, in more than one.
        assert_eq!(
            programmed(
                GIB / 2,
                0xe000_0000,
                &[0x9234_5000, 0xa000_0000, high + GIB, high + 65 * GIB]
            ),
            [0xe000_0000, 0x9000_0000, 0xe000_0000, high, high + 96 * GIB]
        );
        // No BARs below 4 GiB, where configuration space is in the window at reset.
        assert_eq!(
            programmed(GIB / 2, 0xe000_0000, &[high])[..3],
            [0xe000_0000, 0xc000_0000, 0xe000_0000]
        );
        assert_eq!(
            programmed(GIB / 2, 0xc000_0000, &[])[..3],
            [0xc000_0000, 0xd000_0000, 0xfc00_0000]
        );
        // Configuration space that begins in the window, and does not end there.
        assert_eq!(
            programmed(GIB / 2, 0xf000_0000, &[high])[..3],
            [0xf000_0000, 0xc000_0000, 0xf000_0000]
        );
        // Above configuration space or at its start, and right above RAM.
        assert_eq!(
            programmed(GIB / 2, 0xe000_0000, &[0xe000_0000])[1..3],
            [0xe000_0000, 0xfc00_0000]
        );
        assert_eq!(
            programmed(3 * GIB, 0xb000_0000, &[0xf000_0000])[1..3],
            [0xf000_0000, 0xfc00_0000]
        );
        let odd = 0x8123_4000;
        assert_eq!(
            programmed(odd, 0xb000_0000, &[odd])[1..3],
            [odd, 0xb000_0000]
        );
    }

    #[test]
    fn impossible_addresses_leave_the_windows() {
        let at_reset = PciWindows::at_reset(&layout(5 * GIB), 46);
        let reset = [0xb000_0000, 0xc000_0000, 0xfc00_0000, 32 * GIB, 64 * GIB];
        // In RAM, in the chipset's devices, past the end of the address space, configuration space in RAM.
        for bars in [
            &[][..],
            &[0x1000, 0xafff_f000],
            &[0xfc00_0000, 0xfee0_0000],
            &[5 * GIB],
            &[!0xfff],
        ] {
            assert_eq!(programmed(5 * GIB, 0xb000_0000, bars), reset, "{bars:x?}");
        }
        for ecam in [0xa000_0000, 0xf800_0000, 1 << 32] {
            assert_eq!(programmed(5 * GIB, ecam, &[]), reset, "{ecam:#x}");
        }
        assert_eq!(at_reset.programmed(&layout(5 * GIB), None, &[]), at_reset);
        let past_4_gib = 0xe000_0000..=1 << 32;
        assert_eq!(
            at_reset.programmed(&layout(5 * GIB), Some(&past_4_gib), &[]),
            at_reset
        );
        let narrow = PciWindows::at_reset(&layout(GIB), 35);
        assert_eq!(
            narrow.programmed(&layout(GIB), None, &[40 * GIB]).high,
            None
        );
    }
}
