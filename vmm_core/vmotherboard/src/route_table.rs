use crate::routes::RangeRoutes;
use crate::routes::Routes;
use arc_swap::ArcSwap;
use chipset_device::DecodedRanges;
use chipset_device::FixedResources;
use parking_lot::Mutex;
use std::ops::RangeInclusive;

/// The current routes, rebuilt whenever the ranges that a device decodes change.
///
/// Its lock is the innermost one: devices change the ranges that they decode while they are locked.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    /// Replaced as a whole; readers never wait.
    current: ArcSwap<Routes>,
    sources: Mutex<Sources>,
}

/// What the routes are built from, by the index of the device.
#[derive(Debug, Default)]
struct Sources {
    /// `None` until the chipset is built.
    fixed: Option<Vec<FixedResources>>,
    decoded: Vec<DecodedRanges>,
}

impl RouteTable {
    pub(crate) fn port(&self, port: u16) -> Option<usize> {
        self.current.load().ports.find(port)
    }

    pub(crate) fn mmio(&self, gpa: u64) -> Option<usize> {
        self.current.load().mmio.find(gpa)
    }

    /// Starts to route accesses.
    pub(crate) fn connect(&self, fixed: Vec<FixedResources>) {
        let mut sources = self.sources.lock();
        sources.fixed = Some(fixed);
        self.update(&sources);
    }

    /// Replaces the ranges that the device decodes.
    pub(crate) fn set_decoded(&self, device: usize, ranges: DecodedRanges) {
        let mut sources = self.sources.lock();
        if sources.decoded.len() <= device {
            sources
                .decoded
                .resize_with(device + 1, DecodedRanges::default);
        }
        if sources.decoded[device] != ranges {
            sources.decoded[device] = ranges;
            self.update(&sources);
        }
    }

    fn update(&self, sources: &Sources) {
        if let Some(fixed) = &sources.fixed {
            let decoded = &sources.decoded;
            let ports = by_precedence(fixed, |f| &f.ports, decoded, |d| &d.ports);
            let mmio = by_precedence(fixed, |f| &f.mmio, decoded, |d| &d.mmio);
            self.current.store(
                Routes {
                    ports: RangeRoutes::new(ports),
                    mmio: RangeRoutes::new(mmio),
                }
                .into(),
            );
        }
    }
}

/// All fixed ranges, then the decoded ones, each in the order the devices were added.
fn by_precedence<A: Clone>(
    fixed: &[FixedResources],
    fixed_ranges: impl Fn(&FixedResources) -> &Vec<RangeInclusive<A>>,
    decoded: &[DecodedRanges],
    decoded_ranges: impl Fn(&DecodedRanges) -> &Vec<RangeInclusive<A>>,
) -> Vec<(RangeInclusive<A>, usize)> {
    let fixed = fixed.iter().map(fixed_ranges).enumerate();
    let decoded = decoded.iter().map(decoded_ranges).enumerate();
    fixed
        .chain(decoded)
        .flat_map(|(device, ranges)| ranges.iter().map(move |range| (range.clone(), device)))
        .collect()
}

#[cfg(test)]
#[path = "route_table_test.rs"]
mod tests;
