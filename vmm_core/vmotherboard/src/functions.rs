use crate::AttachedDevice;
use crate::device_errors::DeviceErrors;
use chipset_device::PciAddress;
use chipset_device::PciConfigAccess;

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
}

impl PciConfigAccess for PciFunctions {
    fn read(&self, function: PciAddress, offset: u16) -> u32 {
        let Some(device) = self.find(function) else {
            return u32::MAX;
        };
        let result = device.device().lock().read_config(offset);
        result.unwrap_or_else(|error| {
            let address = offset.into();
            self.errors
                .log(device, "configuration read", address, 4, error);
            u32::MAX
        })
    }

    fn write(&self, function: PciAddress, offset: u16, value: u32, mask: u32) {
        let Some(device) = self.find(function) else {
            return;
        };
        let result = device.device().lock().write_config(offset, value, mask);
        if let Err(error) = result {
            let address = offset.into();
            self.errors
                .log(device, "configuration write", address, 4, error);
        }
    }
}
