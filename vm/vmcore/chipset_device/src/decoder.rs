use std::ops::RangeInclusive;
use std::sync::Arc;

/// The addresses that a device currently decodes because the guest programmed them (such as PCI BARs), in
/// addition to its [`FixedResources`](crate::FixedResources).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecodedRanges {
    /// I/O ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Guest-physical addresses.
    pub mmio: Vec<RangeInclusive<u64>>,
}

/// Tells the chipset which addresses a device decodes.
///
/// Passed to a device's constructor. It may be called with the device's lock held, so that accesses to the
/// old and to the new address find the device in the matching state. Where a range overlaps fixed resources
/// of another device, the fixed resources win; among decoded ranges, the device added first wins.
#[derive(Clone)]
pub struct AddressDecoder(Arc<dyn Fn(DecodedRanges) + Send + Sync>);

impl AddressDecoder {
    /// Calls `set` with all ranges that the device decodes, each time they change.
    pub fn new(set: impl Fn(DecodedRanges) + Send + Sync + 'static) -> Self {
        Self(Arc::new(set))
    }

    /// A decoder that is connected to nothing, for a device without a chipset.
    pub fn detached() -> Self {
        Self::new(|_| {})
    }

    /// Replaces the ranges that the device decodes.
    pub fn set(&self, ranges: DecodedRanges) {
        (self.0)(ranges);
    }
}
