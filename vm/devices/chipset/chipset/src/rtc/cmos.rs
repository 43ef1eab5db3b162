/// The size of the CMOS RAM in bytes, the clock's registers included.
pub const CMOS_SIZE: usize = 128;

/// CMOS RAM with the memory size in the registers that PC firmware reads: `below_4g` bytes of RAM at address 0 and
/// `above_4g` bytes at 4 GiB.
pub fn cmos_for_memory(below_4g: u64, above_4g: u64) -> [u8; CMOS_SIZE] {
    let mut cmos = [0; CMOS_SIZE];
    let mut put = |register: usize, value: u64, size: usize| {
        let max = (1_u64 << (8 * size)) - 1;
        let bytes = value.min(max).to_le_bytes();
        cmos[register..register + size].copy_from_slice(&bytes[..size]);
    };
    put(0x15, below_4g.min(640 << 10) >> 10, 2);
    let above_1m = below_4g.saturating_sub(1 << 20) >> 10;
    put(0x17, above_1m, 2);
    put(0x30, above_1m, 2);
    put(0x34, below_4g.saturating_sub(16 << 20) >> 16, 2);
    put(0x5b, above_4g >> 16, 3);
    cmos
}

/// Whether a register is of the memory's size, which the machine's configuration says.
pub(super) fn is_of_memory(register: usize) -> bool {
    matches!(register, 0x15..=0x18 | 0x30 | 0x31 | 0x34 | 0x35 | 0x5b..=0x5d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes_are_in_the_registers_and_saturate() {
        let full = cmos_for_memory(u64::MAX, u64::MAX);
        for (register, value) in full.into_iter().enumerate() {
            assert_eq!(value != 0, is_of_memory(register), "{register:#x}");
        }
        let cmos = cmos_for_memory(3 << 30, 5 << 30);
        assert_eq!(cmos[0x15..0x17], 640_u16.to_le_bytes());
        assert_eq!(cmos[0x17..0x19], [0xff, 0xff]);
        assert_eq!(cmos[0x34..0x36], 0xbf00_u16.to_le_bytes());
        assert_eq!(cmos[0x5b..0x5e], [0, 0x40, 0x01]);
        assert_eq!(cmos[0x0f], 0);
        let small = cmos_for_memory(8 << 20, 0);
        assert_eq!(small[0x30..0x32], 7168_u16.to_le_bytes());
        assert_eq!(small[0x34..0x36], [0, 0]);
    }
}
