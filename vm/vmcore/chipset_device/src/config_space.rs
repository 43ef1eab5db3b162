use crate::PciAddress;
use std::sync::Arc;
use std::sync::OnceLock;

/// Access to the PCI configuration space of all functions of a machine.
pub trait PciConfigAccess: Send + Sync {
    /// Reads the register at `offset` (a multiple of 4). A function that does not exist reads all ones.
    fn read(&self, function: PciAddress, offset: u16) -> u32;

    /// Writes `value` to the bytes of the register at `offset` (a multiple of 4) that `mask` selects.
    fn write(&self, function: PciAddress, offset: u16, value: u32, mask: u32);
}

/// The PCI configuration space of a machine, for devices through which guests access it.
///
/// Passed to a device's constructor and connected when the chipset is built; until then it has no functions.
/// An access locks the device that owns the function. A device that owns a function must therefore not make
/// accesses while it is locked: it could deadlock with itself or with another such device.
#[derive(Clone, Default)]
pub struct PciConfigSpace(Arc<OnceLock<Box<dyn PciConfigAccess>>>);

impl PciConfigSpace {
    /// A configuration space that is not connected yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects it. Later calls have no effect.
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
