//! Allocation of contiguous runs of blocks: best fit.

use vmgs_format::FIRST_DATA_BLOCK;

/// A contiguous run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    pub(crate) start: u32,
    pub(crate) blocks: u32,
}

impl Extent {
    pub(crate) fn new(start: u32, blocks: u32) -> Self {
        Self { start, blocks }
    }

    /// Number of the block after the last, which may not fit a block number.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.blocks)
    }

    pub(crate) fn overlaps(&self, other: &Extent) -> bool {
        u64::from(self.start) < other.end() && u64::from(other.start) < self.end()
    }
}

/// The blocks that must not be overwritten. The extents may overlap each other and the end of the store,
/// as they do in damaged tables.
#[derive(Debug, Clone)]
pub(crate) struct Occupied {
    extents: Vec<Extent>,
    capacity: u32,
}

impl Occupied {
    /// The occupied blocks of a store of `capacity` blocks.
    pub(crate) fn new(capacity: u32, mut extents: Vec<Extent>) -> Self {
        extents.sort_unstable();
        Self { extents, capacity }
    }

    pub(crate) fn insert(&mut self, extent: Extent) {
        let at = self.extents.partition_point(|e| *e < extent);
        self.extents.insert(at, extent);
    }

    /// The gaps between the extents, ascending.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = Extent> + '_ {
        let capacity = u64::from(self.capacity);
        let mut next = u64::from(FIRST_DATA_BLOCK);
        let starts = self
            .extents
            .iter()
            .map(|e| (u64::from(e.start), e.end()))
            .chain([(capacity, capacity)]);
        starts.filter_map(move |(start, end)| {
            let gap = (start.min(capacity) > next).then(|| {
                // Both ends are at most the capacity, so they fit a u32.
                Extent::new(next as u32, (start.min(capacity) - next) as u32)
            });
            next = next.max(end);
            gap
        })
    }

    /// Allocates `blocks` blocks at the start of the smallest gap that is long enough; of several such
    /// gaps, the first.
    pub(crate) fn allocate(&mut self, blocks: u32) -> Option<Extent> {
        let gap = self
            .gaps()
            .filter(|gap| gap.blocks >= blocks)
            .min_by_key(|gap| (gap.blocks, gap.start))?;
        let extent = Extent::new(gap.start, blocks);
        self.insert(extent);
        Some(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_of_the_smallest_gaps_is_used() {
        let mut occupied = Occupied::new(
            20,
            vec![Extent::new(12, 1), Extent::new(5, 2), Extent::new(9, 1)],
        );
        assert_eq!(occupied.allocate(2), Some(Extent::new(7, 2)));
        assert_eq!(occupied.allocate(2), Some(Extent::new(10, 2)));
        assert_eq!(occupied.allocate(4), Some(Extent::new(13, 4)));
        assert_eq!(occupied.allocate(4), None);
        assert_eq!(occupied.allocate(3), Some(Extent::new(2, 3)));
        assert_eq!(occupied.allocate(3), Some(Extent::new(17, 3)));
        assert_eq!(occupied.allocate(1), None);
    }

    proptest! {
        #[test]
        fn no_block_is_allocated_twice(
            extents in proptest::collection::vec((0u32..80, 1u32..20), 0..6),
            wishes in proptest::collection::vec(1u32..20, 0..10),
        ) {
            let mut taken = [false; 64];
            for (start, blocks) in &extents {
                for block in *start..start + blocks {
                    if let Some(t) = taken.get_mut(block as usize) { *t = true; }
                }
            }
            taken[..2].fill(true);
            let extents = extents.iter().map(|&(s, b)| Extent::new(s, b)).collect();
            let mut occupied = Occupied::new(64, extents);
            for wish in wishes {
                let longest = taken.split(|t| *t).map(<[bool]>::len).max().unwrap_or(0);
                match occupied.allocate(wish) {
                    Some(extent) => {
                        prop_assert_eq!(extent.blocks, wish);
                        for block in extent.start..extent.start + wish {
                            prop_assert!(!std::mem::replace(&mut taken[block as usize], true));
                        }
                    }
                    None => prop_assert!(longest < wish as usize),
                }
            }
        }
    }
}
