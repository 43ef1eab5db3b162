use crate::PciAddress;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;

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
pub struct PciConfigSpace(Arc<OnceLock<Weak<dyn PciConfigAccess>>>);

impl PciConfigSpace {
    /// Connects it to `access`, which it does not keep alive: its devices may own this object. Later calls have no effect.
    pub fn connect(&self, access: Weak<dyn PciConfigAccess>) {
        let _ = self.0.set(access);
    }

    fn access(&self) -> Option<Arc<dyn PciConfigAccess>> {
        self.0.get()?.upgrade()
    }

    /// Reads the register at `offset` (a multiple of 4). A function that does not exist reads all ones.
    pub fn read(&self, function: PciAddress, offset: u16) -> u32 {
        let access = self.access();
        access.map_or(u32::MAX, |access| access.read(function, offset))
    }

    /// Writes `value` to the bytes of the register at `offset` (a multiple of 4) that `mask` selects.
    pub fn write(&self, function: PciAddress, offset: u16, value: u32, mask: u32) {
        if let Some(access) = self.access() {
            access.write(function, offset, value, mask);
        }
    }
}
