use crate::PciAddress;
use std::sync::Arc;
use std::sync::OnceLock;

/// The PCI configuration space of a machine: all functions' registers.
pub trait PciConfigAccess: Send + Sync {
    /// Reads the register at `offset` (a multiple of 4). A function that does not exist reads all ones.
    fn read(&self, function: PciAddress, offset: u16) -> u32;

    /// Writes `value` to the bytes of the register at `offset` (a multiple of 4) that `mask` selects.
    fn write(&self, function: PciAddress, offset: u16, value: u32, mask: u32);
}

/// Leads to the configuration space of the machine that a device is part of, for the devices through which
/// guests reach it.
///
/// Given to a device's constructor; connected once the chipset is built, and without functions until then.
/// An access locks the device that has the function. So a device with a function of its own must not make
/// accesses while it is locked: two of them could wait for each other, or one for itself.
#[derive(Clone, Default)]
pub struct PciConfigSpace(Arc<OnceLock<Box<dyn PciConfigAccess>>>);

impl PciConfigSpace {
    /// A configuration space not connected yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects it; the first connection stays.
    pub fn connect(&self, access: impl PciConfigAccess + 'static) {
        let _ = self.0.set(Box::new(access));
    }

    /// Reads the register at `offset` (a multiple of 4). A function that does not exist reads all ones.
    pub fn read(&self, function: PciAddress, offset: u16) -> u32 {
        let access = self.0.get();
        access.map_or(u32::MAX, |access| access.read(function, offset))
    }

    /// Writes `value` to the bytes of the register at `offset` (a multiple of 4) that `mask` selects.
    pub fn write(&self, function: PciAddress, offset: u16, value: u32, mask: u32) {
        if let Some(access) = self.0.get() {
            access.write(function, offset, value, mask);
        }
    }
}

impl std::fmt::Debug for PciConfigSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PciConfigSpace")
            .field("connected", &self.0.get().is_some())
            .finish()
    }
}
