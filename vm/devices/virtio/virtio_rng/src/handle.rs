use crate::EntropyDevice;
use crate::EntropyRate;
use chipset_device::DeviceBuildError;
use chipset_device::MachineContext;
use chipset_device::PciDeviceHandle;
use chipset_device::PciSlotContext;
use chipset_device::ResourceHandle;
use chipset_device::SharedDevice;
use minicbor::Decode;
use minicbor::Encode;
use uuid::Uuid;

/// An entropy device with the default rate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VirtioRngHandle {}

impl ResourceHandle for VirtioRngHandle {
    const ID: &'static str = "virtio-rng";
}

impl PciDeviceHandle for VirtioRngHandle {
    fn identity(&self, _name: &str, _vm: Uuid) -> String {
        "virtio-rng".to_owned()
    }

    fn build(
        &self,
        slot: &PciSlotContext,
        machine: &mut MachineContext<'_>,
    ) -> Result<SharedDevice, DeviceBuildError> {
        let device = EntropyDevice::new(EntropyRate::default());
        virtio::build_pci_function(device, slot, machine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::payload;

    #[test]
    fn the_handle_is_encoded_and_has_its_identity() {
        let bytes = payload::encode(&VirtioRngHandle {});
        assert_eq!(bytes, [0xa0]);
        let handle: VirtioRngHandle = payload::decode(&bytes).unwrap();
        assert_eq!(handle.identity("rng0", Uuid::nil()), "virtio-rng");
    }
}
