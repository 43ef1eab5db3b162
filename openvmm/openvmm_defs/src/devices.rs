//! The devices of a VM, as its configuration names them.

use chipset_device::DeviceHandle;
use chipset_device::PciAddress;
use minicbor::Decode;
use minicbor::Encode;
use std::collections::BTreeSet;
use vm_resource::Resource;

/// A device with fixed addresses.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChipsetDeviceConfig {
    /// Its name in the VM: unique, and the key of its saved state.
    #[n(1)]
    pub name: String,
    /// What it is.
    #[n(2)]
    pub resource: Resource,
}

impl ChipsetDeviceConfig {
    /// The device that `handle` describes.
    pub fn new<H: DeviceHandle>(name: &str, handle: &H) -> Self {
        Self {
            name: name.to_owned(),
            resource: Resource::new(handle),
        }
    }
}

/// A PCI function on bus 0.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PciDeviceConfig {
    /// Its name in the VM: unique, and the key of its saved state.
    #[n(1)]
    pub name: String,
    /// Where it is.
    #[n(2)]
    pub slot: PciSlot,
    /// What it is.
    #[n(3)]
    pub resource: Resource,
}

/// The address of a PCI function on bus 0.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct PciSlot {
    /// Device number, 1 to 30: 0 and 31 are the chipset's.
    #[n(1)]
    pub device: u8,
    /// Function number, 0 to 7.
    #[n(2)]
    pub function: u8,
}

impl PciSlot {
    /// The address on segment 0.
    pub fn address(self) -> PciAddress {
        PciAddress {
            bus: 0,
            device: self.device,
            function: self.function,
        }
    }
}

/// A PCI function that may have no address yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDeviceRequest {
    /// Its name in the VM.
    pub name: String,
    /// Where it is; at the next free device number where `None`.
    pub slot: Option<PciSlot>,
    /// What it is.
    pub resource: Resource,
}

/// Why a PCI function cannot be at an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PciSlotError {
    /// Two functions have one address.
    #[error("{name} cannot be at {address}: another device is there")]
    Taken {
        /// The device's name.
        name: String,
        /// The address.
        address: PciAddress,
    },
    /// Guests look at function 0 first, and at the others only if it is there.
    #[error(
        "{name} is alone at {address}, where no guest finds it: function 0 of the device is missing"
    )]
    NoFunctionZero {
        /// The device's name.
        name: String,
        /// The address.
        address: PciAddress,
    },
    /// Bus 0 is full.
    #[error("there is no free PCI slot for {name}")]
    Full {
        /// The device's name.
        name: String,
    },
}

/// Gives each device that has no address the lowest free device number, in their order.
pub fn assign_pci_slots(
    devices: Vec<PciDeviceRequest>,
) -> Result<Vec<PciDeviceConfig>, PciSlotError> {
    let mut chosen = BTreeSet::new();
    for device in &devices {
        if let Some(slot) = device.slot
            && !chosen.insert(slot)
        {
            return Err(PciSlotError::Taken {
                name: device.name.clone(),
                address: slot.address(),
            });
        }
    }
    let mut free = (1..=30).filter(|&device| !chosen.iter().any(|slot| slot.device == device));
    devices
        .into_iter()
        .map(
            |PciDeviceRequest {
                 name,
                 slot,
                 resource,
             }| {
                let slot = match slot {
                    Some(slot) => {
                        if !chosen.contains(&PciSlot {
                            function: 0,
                            ..slot
                        }) {
                            let address = slot.address();
                            return Err(PciSlotError::NoFunctionZero { name, address });
                        }
                        slot
                    }
                    None => match free.next() {
                        Some(device) => PciSlot {
                            device,
                            function: 0,
                        },
                        None => return Err(PciSlotError::Full { name }),
                    },
                };
                Ok(PciDeviceConfig {
                    name,
                    slot,
                    resource,
                })
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::BuildResult;
    use chipset_device::MachineContext;
    use mesh::payload;

    #[derive(Encode, Decode)]
    #[cbor(map)]
    struct Nothing {}

    impl DeviceHandle for Nothing {
        const ID: &'static str = "nothing";

        fn build(&self, _machine: &mut MachineContext<'_>) -> BuildResult {
            Err("nothing".into())
        }
    }

    fn device(name: &str, slot: Option<(u8, u8)>) -> PciDeviceRequest {
        PciDeviceRequest {
            name: name.to_owned(),
            slot: slot.map(|(device, function)| PciSlot { device, function }),
            resource: Resource::new(&Nothing {}),
        }
    }

    #[test]
    fn devices_without_a_slot_get_the_lowest_that_nobody_chose() {
        let devices = vec![
            device("a", None),
            device("b", Some((1, 0))),
            device("c", Some((3, 0))),
            device("d", None),
            device("e", Some((3, 5))),
        ];
        let devices = assign_pci_slots(devices).unwrap();
        let slots: Vec<_> = devices
            .iter()
            .map(|device| (&*device.name, device.slot.device, device.slot.function))
            .collect();
        let expected = [
            ("a", 2, 0),
            ("b", 1, 0),
            ("c", 3, 0),
            ("d", 4, 0),
            ("e", 3, 5),
        ];
        assert_eq!(slots, expected);
        assert_eq!(payload::decode(&payload::encode(&devices)), Ok(devices));
    }

    #[test]
    fn impossible_slots_are_refused() {
        let twice = vec![device("a", Some((4, 0))), device("b", Some((4, 0)))];
        let error = assign_pci_slots(twice).unwrap_err();
        assert!(matches!(error, PciSlotError::Taken { .. }));
        let hidden = vec![device("a", Some((4, 1)))];
        let error = assign_pci_slots(hidden).unwrap_err();
        assert!(matches!(error, PciSlotError::NoFunctionZero { .. }));
        let mut many: Vec<_> = (0..31).map(|_| device("x", None)).collect();
        let error = assign_pci_slots(many.clone()).unwrap_err();
        assert!(matches!(error, PciSlotError::Full { .. }));
        many.pop();
        assert!(assign_pci_slots(many).is_ok());
    }

    #[test]
    fn chipset_devices_survive_encoding() {
        let device = ChipsetDeviceConfig::new("x", &Nothing {});
        assert_eq!(payload::decode(&payload::encode(&device)), Ok(device));
    }
}
