use crate::AttachedDevice;
use crate::device_errors::DeviceErrors;
use chipset_device::IoError;
use chipset_device::PciAddress;
use chipset_device::PciConfigAccess;
use std::sync::Weak;

/// The devices with a PCI configuration space. The set never changes.
pub(crate) struct PciFunctions {
    /// Sorted by address.
    functions: Box<[(PciAddress, AttachedDevice)]>,
    errors: DeviceErrors,
}

impl PciFunctions {
    pub(crate) fn new(mut functions: Vec<(PciAddress, AttachedDevice)>) -> Self {
        functions.sort_by_key(|(address, _)| *address);
        Self {
            functions: functions.into(),
            errors: DeviceErrors::default(),
        }
    }

    fn find(&self, function: PciAddress) -> Option<&AttachedDevice> {
        let found = self
            .functions
            .binary_search_by_key(&function, |(address, _)| *address);
        found.ok().map(|at| &self.functions[at].1)
    }

    pub(crate) fn read(&self, function: PciAddress, offset: u16) -> u32 {
        let Some(device) = self.find(function) else {
            return u32::MAX;
        };
        let result = match device.device().lock().pci() {
            Some(pci) => pci.read(offset),
            None => Err(IoError::InvalidRegister),
        };
        result.unwrap_or_else(|error| {
            let address = offset.into();
            self.errors
                .log(device, "configuration read", address, 4, error);
            u32::MAX
        })
    }

    pub(crate) fn write(&self, function: PciAddress, offset: u16, value: u32, mask: u32) {
        let Some(device) = self.find(function) else {
            return;
        };
        let result = match device.device().lock().pci() {
            Some(pci) => pci.write(offset, value, mask),
            None => Err(IoError::InvalidRegister),
        };
        if let Err(error) = result {
            let address = offset.into();
            self.errors
                .log(device, "configuration write", address, 4, error);
        }
    }
}

/// Access to the functions for a device of the chipset. It does not keep them alive.
pub(crate) struct FunctionAccess(pub(crate) Weak<PciFunctions>);

impl PciConfigAccess for FunctionAccess {
    fn read(&self, function: PciAddress, offset: u16) -> u32 {
        let functions = self.0.upgrade();
        functions.map_or(u32::MAX, |functions| functions.read(function, offset))
    }

    fn write(&self, function: PciAddress, offset: u16, value: u32, mask: u32) {
        if let Some(functions) = self.0.upgrade() {
            functions.write(function, offset, value, mask);
        }
    }
}
