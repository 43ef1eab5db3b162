//! The memory type range registers, for payloads that start without firmware to set them.

use crate::VpRegister;
use guest_memory::MemoryRange;

const PHYS_BASE0: u32 = 0x200;
const PHYS_MASK0: u32 = 0x201;
const FIX64K_00000: u32 = 0x250;
const FIX16K_80000: u32 = 0x258;
const FIX4K_C0000: u32 = 0x268;
const DEF_TYPE: u32 = 0x2ff;
const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
const ENABLE_WITH_FIXED: u64 = 0xc00;
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
    let all_bits = u64::MAX >> (64 - u32::from(address_bits.clamp(32, 52)));
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
