use chipset_device::PciAddress;
use std::ops::RangeInclusive;

/// The device that answers for each claimed address, by its index in the chipset.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    ports: RangeRoutes<u16>,
    mmio: RangeRoutes<u64>,
    /// Sorted by address.
    pci: Box<[(PciAddress, usize)]>,
    /// Ports whose unclaimed accesses are normal.
    ignored_ports: RangeRoutes<u16>,
}

impl Routes {
    pub(crate) fn new(
        ports: RangeRoutes<u16>,
        mmio: RangeRoutes<u64>,
        mut pci: Vec<(PciAddress, usize)>,
        ignored_ports: RangeRoutes<u16>,
    ) -> Self {
        pci.sort_unstable();
        Self {
            ports,
            mmio,
            pci: pci.into(),
            ignored_ports,
        }
    }

    pub(crate) fn port(&self, port: u16) -> Option<usize> {
        self.ports.find(port)
    }

    pub(crate) fn mmio(&self, gpa: u64) -> Option<usize> {
        self.mmio.find(gpa)
    }

    pub(crate) fn pci(&self, address: PciAddress) -> Option<usize> {
        let found = self.pci.binary_search_by_key(&address, |entry| entry.0);
        found.ok().map(|at| self.pci[at].1)
    }

    pub(crate) fn ignores_port(&self, port: u16) -> bool {
        self.ignored_ports.find(port).is_some()
    }
}

/// Disjoint ranges of addresses, each with the index of its owner.
///
/// Starts are kept apart from the rest so that the search touches few cache lines.
#[derive(Debug, Default)]
pub(crate) struct RangeRoutes<A> {
    starts: Box<[A]>,
    /// The last address and the owner of the range with the same position in `starts`.
    rest: Box<[(A, usize)]>,
}

impl<A: Copy + Ord> RangeRoutes<A> {
    /// Takes non-empty ranges. Where ranges overlap, the owner found is one of theirs.
    pub(crate) fn new(ranges: impl IntoIterator<Item = (RangeInclusive<A>, usize)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_by_key(|(range, _)| *range.start());
        Self {
            starts: ranges.iter().map(|(range, _)| *range.start()).collect(),
            rest: ranges
                .iter()
                .map(|(range, owner)| (*range.end(), *owner))
                .collect(),
        }
    }

    fn find(&self, address: A) -> Option<usize> {
        let after = self.starts.partition_point(|start| *start <= address);
        let (end, owner) = *self.rest.get(after.checked_sub(1)?)?;
        (address <= end).then_some(owner)
    }
}
