use rangemap::RangeInclusiveMap;
use rangemap::StepLite;
use std::ops::RangeInclusive;

/// The device that each address is routed to, as an index into the devices of the chipset.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) ports: RangeRoutes<u16>,
    pub(crate) mmio: RangeRoutes<u64>,
}

/// Disjoint ranges of addresses, each with the index of its owner.
///
/// Starts are stored separately so that the search touches few cache lines.
#[derive(Debug, Default)]
pub(crate) struct RangeRoutes<A> {
    starts: Box<[A]>,
    /// The last address and the owner of each range, in the order of `starts`.
    ends: Box<[(A, usize)]>,
}

impl<A: Copy + Ord + StepLite> RangeRoutes<A> {
    /// Ranges may be in any order. Where they overlap, the earlier one in the list owns the addresses. Empty ranges own
    /// none.
    pub(crate) fn new(ranges: Vec<(RangeInclusive<A>, usize)>) -> Self {
        let mut owners = RangeInclusiveMap::new();
        // A later insertion takes the addresses of an earlier one.
        for (range, owner) in ranges.into_iter().rev() {
            if !range.is_empty() {
                owners.insert(range, owner);
            }
        }
        Self {
            starts: owners.iter().map(|(range, _)| *range.start()).collect(),
            ends: owners
                .iter()
                .map(|(range, owner)| (*range.end(), *owner))
                .collect(),
        }
    }

    pub(crate) fn find(&self, address: A) -> Option<usize> {
        let after = self.starts.partition_point(|start| *start <= address);
        let (end, owner) = *self.ends.get(after.checked_sub(1)?)?;
        (address <= end).then_some(owner)
    }
}

#[cfg(test)]
#[path = "routes_test.rs"]
mod tests;
