use crate::EntropyDevice;
use crate::EntropyRate;
use chipset_device::BuildResult;
use chipset_device::DeviceHandle;
use chipset_device::MachineContext;
use chipset_device::VpCount;
use minicbor::Decode;
use minicbor::Encode;
use uuid::Uuid;

/// An entropy device with the default rate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VirtioRngHandle {}

impl DeviceHandle for VirtioRngHandle {
    const ID: &'static str = "virtio-rng";

    fn identity(&self, _name: &str, _vm: Uuid) -> Option<String> {
        Some("virtio-rng".to_owned())
    }

    fn msi_vectors(&self, _vps: VpCount) -> u32 {
        virtio::msi_vectors(1)
    }

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let device = EntropyDevice::new(EntropyRate::default());
        virtio::build_pci_function(device, machine)
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
        let identity = handle.identity("rng0", Uuid::nil());
        assert_eq!(identity.as_deref(), Some("virtio-rng"));
    }
}
