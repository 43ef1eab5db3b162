//! Page tables that map the first 4 GiB onto themselves, in 2 MiB pages.

use crate::PAGE;

const ENTRIES: usize = 512;
/// One PML4, one page directory pointer table, and a page directory for each of 4 GiB.
pub(crate) const PAGES: usize = 6;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;

const TABLE: u64 = PRESENT | WRITABLE | ACCESSED;
const LEAF: u64 = TABLE | DIRTY | LARGE;

/// The six pages for address `base`, the PML4 first.
pub(crate) fn identity_4gib(base: u64) -> Vec<u8> {
    let page = |index: u64| base + index * PAGE;
    let mut entries = vec![0u64; PAGES * ENTRIES];
    entries[0] = page(1) | TABLE;
    for directory in 0..4 {
        entries[ENTRIES + directory] = page(2 + directory as u64) | TABLE;
    }
    for (i, entry) in entries[2 * ENTRIES..].iter_mut().enumerate() {
        *entry = (i as u64) << 21 | LEAF;
    }
    entries.iter().flat_map(|e| e.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_below_4_gib_maps_to_itself() {
        let base = 0x4000;
        let bytes = identity_4gib(base);
        let entry = |table: u64, index: u64| {
            let at = usize::try_from(table - base + index * 8).unwrap();
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        for address in [0, 0x1234_5678, 0x3fff_ffff, 0x4000_0000, 0xffff_ffff] {
            let pml4e = entry(base, address >> 39);
            assert_eq!(pml4e & 0xfff, 0x23);
            let pdpte = entry(pml4e & !0xfff, address >> 30 & 0x1ff);
            assert_eq!(pdpte & 0xfff, 0x23);
            let pde = entry(pdpte & !0xfff, address >> 21 & 0x1ff);
            assert_eq!(pde & 0x1f_ffff, 0xe3);
            assert_eq!(pde & !0x1f_ffff | address & 0x1f_ffff, address);
        }
        // Nothing above.
        assert_eq!(entry(base, 1), 0);
        assert_eq!(entry(base + 0x1000, 4), 0);
    }
}
