//! The memory types that MTRRs give to addresses (SDM volume 3, 12.11).

/// Write-back.
pub const WRITE_BACK: u64 = 6;
/// Uncacheable.
pub const UNCACHEABLE: u64 = 0;

/// The most variable ranges that are looked at.
pub const MAX_RANGES: usize = 16;

const VALID: u64 = 1 << 11;
const TYPE: u64 = 0xff;
/// Address bits of bases and masks.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The variable MTRRs: base and mask of each, and the default type.
#[derive(Debug, Copy, Clone)]
pub struct VariableMtrrs {
    /// Bases and masks.
    pub ranges: [(u64, u64); MAX_RANGES],
    /// The register with the default type.
    pub default: u64,
}

impl VariableMtrrs {
    /// The type of an address above 1 MiB.
    pub fn kind_at(&self, gpa: u64) -> u64 {
        let mut found = None;
        for (base, mask) in self.ranges {
            let bits = mask & ADDRESS;
            if mask & VALID == 0 || gpa & bits != base & bits {
                continue;
            }
            let kind = base & TYPE;
            if kind == UNCACHEABLE {
                return UNCACHEABLE;
            }
            found = Some(kind);
        }
        found.unwrap_or(self.default & TYPE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_are_uncacheable() {
        let mut mtrrs = VariableMtrrs {
            ranges: [(0, 0); MAX_RANGES],
            default: 0xc00,
        };
        mtrrs.ranges[0] = (6, 0xff_0000_0800);
        mtrrs.ranges[3] = (0xc000_0000, 0xff_c000_0800);
        assert_eq!(mtrrs.kind_at(0x10_0000), WRITE_BACK);
        assert_eq!(mtrrs.kind_at(0xbfff_f000), WRITE_BACK);
        assert_eq!(mtrrs.kind_at(0xc000_0000), UNCACHEABLE);
        assert_eq!(mtrrs.kind_at(1 << 32), UNCACHEABLE, "the default");
        mtrrs.ranges[0].1 = 0;
        assert_eq!(mtrrs.kind_at(0x10_0000), UNCACHEABLE);
    }
}
