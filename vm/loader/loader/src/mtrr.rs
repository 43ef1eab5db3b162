//! The memory type range registers, for payloads that start without firmware to set them.

use crate::VpRegister;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;

const PHYS_BASE0: u32 = 0x200;
const PHYS_MASK0: u32 = 0x201;
const FIX64K_00000: u32 = 0x250;
const FIX16K_80000: u32 = 0x258;
const FIX4K_C0000: u32 = 0x268;
const DEF_TYPE: u32 = 0x2ff;
const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
const ENABLE_WITH_FIXED: u64 = 0xc00;
const UNCACHEABLE: u64 = 0;
const WRITE_BACK: u64 = 6;
const VALID: u64 = 1 << 11;
const VARIABLE_RANGES: u32 = 8;

/// Memory types as firmware would have set them (SDM volume 3, 12.11): write-back, except for the legacy
/// video memory and the low MMIO gap. Without MTRRs Linux turns PAT off.
pub(crate) fn mtrrs(low_mmio: MemoryRange, address_bits: u8) -> Vec<VpRegister> {
    let mut mtrrs = vec![
        VpRegister::Msr(FIX64K_00000, ALL_WRITE_BACK),
        VpRegister::Msr(FIX16K_80000, ALL_WRITE_BACK),
    ];
    mtrrs
        .extend((FIX4K_C0000..FIX4K_C0000 + 8).map(|index| VpRegister::Msr(index, ALL_WRITE_BACK)));
    // Each variable range covers a power of two that is aligned to its size. Without enough of them the rest of the
    // gap is write-back, which only matters to a host that looks at the guest's types.
    let all_bits = all_address_bits(address_bits);
    for (n, (start, len)) in (0..VARIABLE_RANGES).zip(aligned_blocks(low_mmio)) {
        mtrrs.push(VpRegister::Msr(PHYS_BASE0 + 2 * n, start));
        mtrrs.push(VpRegister::Msr(
            PHYS_MASK0 + 2 * n,
            all_bits & !(len - 1) | VALID,
        ));
    }
    mtrrs.push(VpRegister::Msr(DEF_TYPE, ENABLE_WITH_FIXED | WRITE_BACK));
    mtrrs
}

/// The fixed MTRRs and the default type for firmware that has to set up only what it uses itself: write-back below
/// 640 KiB, uncacheable elsewhere.
pub fn firmware_fixed_mtrrs() -> Vec<VpRegister> {
    vec![
        VpRegister::Msr(FIX64K_00000, ALL_WRITE_BACK),
        VpRegister::Msr(FIX16K_80000, ALL_WRITE_BACK),
        VpRegister::Msr(DEF_TYPE, ENABLE_WITH_FIXED),
    ]
}

/// The variable MTRRs for firmware that leaves them alone: all RAM is write-back, and the default type covers the rest.
/// Every VP needs the same.
///
/// Ranges do not overlap, and are not larger than what lies between RAM and `high_limit`, the first address above 4 GiB
/// that may be a device's. If a processor has too few registers for that, one range covers everything, and others take
/// the low MMIO gap out of it.
pub fn firmware_variable_mtrrs(
    layout: &MemoryLayout,
    high_limit: u64,
    address_bits: u8,
) -> Vec<VpRegister> {
    let gap = layout.low_mmio();
    let mut blocks = Vec::new();
    for ram in layout.ram() {
        let limit = match ram.end <= gap.start {
            true => gap.start,
            false => high_limit,
        };
        blocks.extend(covering(*ram, limit));
    }
    let mut typed: Vec<_> = blocks
        .into_iter()
        .map(|block| (block, WRITE_BACK))
        .collect();
    if typed.len() > VARIABLE_RANGES as usize {
        let end = layout.ram().last().map_or(0, |ram| ram.end);
        typed = vec![((0, end.next_power_of_two()), WRITE_BACK)];
        typed.extend(aligned_blocks(gap).map(|block| (block, UNCACHEABLE)));
    }
    let all_bits = all_address_bits(address_bits);
    (0..VARIABLE_RANGES)
        .zip(typed)
        .flat_map(|(n, ((start, len), kind))| {
            [
                VpRegister::Msr(PHYS_BASE0 + 2 * n, start | kind),
                VpRegister::Msr(PHYS_MASK0 + 2 * n, all_bits & !(len - 1) | VALID),
            ]
        })
        .collect()
}

/// The smallest number of aligned blocks that cover a range and end at `limit` at the latest.
fn covering(range: MemoryRange, limit: u64) -> Vec<(u64, u64)> {
    let ends = (12..52).filter_map(|bit| {
        let end = range.end.checked_next_multiple_of(1 << bit)?;
        (end == range.end || end <= limit).then_some(end)
    });
    let blocks = ends.map(|end| {
        let start = range.start;
        aligned_blocks(MemoryRange { start, end }).collect::<Vec<_>>()
    });
    blocks.min_by_key(Vec::len).unwrap_or_default()
}

fn all_address_bits(address_bits: u8) -> u64 {
    u64::MAX >> (64 - u32::from(address_bits.clamp(32, 52)))
}

/// Start and length of the largest aligned powers of two that make up a range.
fn aligned_blocks(range: MemoryRange) -> impl Iterator<Item = (u64, u64)> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let rest = range.end.checked_sub(start).filter(|rest| *rest > 0)?;
        let aligned = match start {
            0 => u64::MAX,
            start => 1 << start.trailing_zeros(),
        };
        let len = aligned.min(1 << rest.ilog2());
        let block = (start, len);
        start += len;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_uncacheable() {
        let gap = MemoryRange {
            start: 0xc000_0000,
            end: 1 << 32,
        };
        let mtrrs = mtrrs(gap, 40);
        assert!(mtrrs.contains(&VpRegister::Msr(0x200, 0xc000_0000)));
        assert!(mtrrs.contains(&VpRegister::Msr(0x201, 0xff_c000_0800)));
        assert_eq!(mtrrs.last(), Some(&VpRegister::Msr(0x2ff, 0xc06)));
    }

    #[test]
    fn all_fixed_ranges_are_write_back() {
        let fixed = [0x250, 0x258].into_iter().chain(0x268..=0x26f);
        let gap = MemoryRange { start: 0, end: 0 };
        let mtrrs = mtrrs(gap, 40);
        for index in fixed {
            let write_back = VpRegister::Msr(index, 0x0606_0606_0606_0606);
            assert!(mtrrs.contains(&write_back), "{index:#x}");
        }
    }

    #[test]
    fn no_range_is_set_that_a_processor_lacks() {
        // 20 blocks.
        let gap = MemoryRange {
            start: 0x1000,
            end: 1 << 32,
        };
        let mtrrs = mtrrs(gap, 60);
        let variable: Vec<_> = mtrrs
            .iter()
            .filter_map(|register| match *register {
                VpRegister::Msr(index @ 0x200..0x250, value) => Some((index, value)),
                _ => None,
            })
            .collect();
        let indices: Vec<_> = variable.iter().map(|(index, _)| *index).collect();
        assert_eq!(indices, Vec::from_iter(0x200..0x210));
        // No more address bits than there can be.
        assert_eq!(variable[1], (0x201, 0xf_ffff_ffff_f800));
    }

    /// The type that the registers give an address (SDM volume 3, 12.11.4.1).
    fn kind_at(mtrrs: &[VpRegister], gpa: u64) -> u64 {
        let kinds = mtrrs.chunks(2).filter_map(|pair| {
            let [VpRegister::Msr(_, base), VpRegister::Msr(_, mask)] = *pair else {
                panic!("{pair:?}");
            };
            let bits = mask & !0xfff;
            (mask & VALID != 0 && gpa & bits == base & bits).then_some(base & 0xff)
        });
        let kinds: Vec<_> = kinds.collect();
        match kinds.contains(&UNCACHEABLE) {
            true => UNCACHEABLE,
            false => kinds.first().copied().unwrap_or(UNCACHEABLE),
        }
    }

    #[test]
    fn firmware_finds_all_ram_write_back_and_devices_uncacheable() {
        const GIB: u64 = 1 << 30;
        const GAP: u64 = 0xb000_0000;
        for size in [
            64 << 20,
            100 << 20,
            GIB - (2 << 20),
            GAP,
            GAP + 0x1000,
            8 * GIB,
            64 * GIB + (6 << 20),
            (1 << 40) - (10 << 20),
            1 << 44,
        ] {
            let layout = MemoryLayout::new(size, GAP, 46).unwrap();
            let end = layout.ram().last().unwrap().end;
            let limit = end.max(1 << 32).next_multiple_of(32 * GIB);
            let mtrrs = firmware_variable_mtrrs(&layout, limit, 46);
            assert!(mtrrs.len() <= 16, "{size:#x}: {mtrrs:x?}");
            for ram in layout.ram() {
                let mut gpa = ram.start;
                while gpa < ram.end {
                    assert_eq!(kind_at(&mtrrs, gpa), WRITE_BACK, "{size:#x}: {gpa:#x}");
                    gpa += (ram.len() / 1000).max(0x1000);
                }
                assert_eq!(kind_at(&mtrrs, ram.end - 1), WRITE_BACK, "{size:#x}");
            }
            for device in [GAP, 0xc000_0000, 0xfee0_0000, 0xffff_ffff] {
                assert_eq!(
                    kind_at(&mtrrs, device),
                    UNCACHEABLE,
                    "{size:#x}: {device:#x}"
                );
            }
            // The exception: so much RAM that there are not enough registers.
            if size < 1 << 39 {
                assert_eq!(kind_at(&mtrrs, limit), UNCACHEABLE, "{size:#x}");
            }
        }
    }

    #[test]
    fn a_small_machine_has_one_range() {
        let layout = MemoryLayout::new(100 << 20, 0xb000_0000, 40).unwrap();
        let expected = [
            VpRegister::Msr(0x200, 6),
            VpRegister::Msr(0x201, 0xff_f800_0800),
        ];
        assert_eq!(firmware_variable_mtrrs(&layout, 1 << 35, 40), expected);
    }

    #[test]
    fn a_gap_of_any_shape_is_made_of_blocks() {
        let blocks = |start, end| aligned_blocks(MemoryRange { start, end }).collect::<Vec<_>>();
        assert_eq!(
            blocks(0xb000_0000, 1 << 32),
            [(0xb000_0000, 0x1000_0000), (0xc000_0000, 0x4000_0000)]
        );
        assert_eq!(blocks(0, 0x3000), [(0, 0x2000), (0x2000, 0x1000)]);
        assert_eq!(blocks(0x1000, 0x1000), []);
    }
}
