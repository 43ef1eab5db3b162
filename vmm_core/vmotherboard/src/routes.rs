use std::ops::RangeInclusive;

/// The device that each address is routed to, as an index into the devices of the chipset.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) ports: RangeRoutes<u16>,
    pub(crate) mmio: RangeRoutes<u64>,
}

/// An address whose neighbours can be computed.
pub(crate) trait Address: Copy + Ord {
    /// The address after this one, or `None` if this is the last one.
    fn next(self) -> Option<Self>;

    /// The address before this one, or `None` if this is the first one.
    fn previous(self) -> Option<Self>;
}

impl Address for u16 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Address for u64 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
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

impl<A: Address> RangeRoutes<A> {
    /// Ranges may be in any order. Where they overlap, the earlier one in the iteration owns the addresses. Empty
    /// ranges own none.
    pub(crate) fn new(ranges: impl IntoIterator<Item = (RangeInclusive<A>, usize)>) -> Self {
        let mut disjoint: Vec<(RangeInclusive<A>, usize)> = Vec::new();
        for (range, owner) in ranges {
            // The owned ranges that overlap the new one are adjacent in the list.
            let first = disjoint.partition_point(|(owned, _)| owned.end() < range.start());
            let end = disjoint.partition_point(|(owned, _)| owned.start() <= range.end());
            if range.is_empty() {
                continue;
            }
            let free = gaps(&range, &disjoint[first..end]);
            let owned = disjoint[first..end].iter().cloned();
            let mut pieces: Vec<_> = free.into_iter().map(|gap| (gap, owner)).collect();
            pieces.extend(owned);
            pieces.sort_by_key(|(piece, _)| *piece.start());
            disjoint.splice(first..end, pieces);
        }
        Self {
            starts: disjoint.iter().map(|(range, _)| *range.start()).collect(),
            ends: disjoint
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

/// The parts of `range` outside of `owned`, which are sorted disjoint ranges that all overlap it.
fn gaps<A: Address>(
    range: &RangeInclusive<A>,
    owned: &[(RangeInclusive<A>, usize)],
) -> Vec<RangeInclusive<A>> {
    let mut gaps = Vec::new();
    // Where the next gap starts; `None` if the owned range before it ends at the last address.
    let mut cursor = Some(*range.start());
    for (owned, _) in owned {
        if let (Some(start), Some(end)) = (cursor, owned.start().previous())
            && start <= end
        {
            gaps.push(start..=end);
        }
        cursor = owned.end().next();
    }
    if let Some(start) = cursor
        && start <= *range.end()
    {
        gaps.push(start..=*range.end());
    }
    gaps
}

#[cfg(test)]
#[path = "routes_test.rs"]
mod tests;
