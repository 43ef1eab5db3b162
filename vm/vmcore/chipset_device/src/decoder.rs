use std::ops::RangeInclusive;
use std::sync::Arc;

/// The addresses a device answers at the guest's choice (those of its PCI BARs), beside its
/// [`Claims`](crate::Claims).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decodes {
    /// I/O ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Guest-physical addresses.
    pub mmio: Vec<RangeInclusive<u64>>,
}

/// Tells the chipset which addresses a device answers now.
///
/// Given to a device's constructor. It may be called with the device's lock held, so that an access to the
/// old place and one to the new place find the device in the state that fits. Where a range overlaps
/// another device's claims, claims win; among the ranges that guests chose, the device added first wins.
#[derive(Clone)]
pub struct AddressDecoder(Arc<dyn Fn(Decodes) + Send + Sync>);

impl AddressDecoder {
    /// Calls `set` with all that the device answers beside its claims, each time that changes.
    pub fn new(set: impl Fn(Decodes) + Send + Sync + 'static) -> Self {
        Self(Arc::new(set))
    }

    /// A decoder that routes nothing, for a device by itself.
    pub fn detached() -> Self {
        Self::new(|_| {})
    }

    /// Replaces what the device answers beside its claims.
    pub fn set(&self, decodes: Decodes) {
        (self.0)(decodes);
    }
}

impl std::fmt::Debug for AddressDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AddressDecoder")
    }
}
