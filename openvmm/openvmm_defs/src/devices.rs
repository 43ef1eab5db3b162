//! The devices of a VM, as its configuration names them.

use chipset_device::DeviceHandle;
use chipset_device::PciAddress;
use minicbor::Decode;
use minicbor::Encode;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
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

/// The device numbers that are not the chipset's.
const DEVICES: RangeInclusive<u8> = 1..=30;

/// Why a PCI function cannot be at an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PciSlotError {
    /// There is no such address, or it is the chipset's.
    #[error(
        "{name} cannot be at {address}: devices 01 to 1e, and of each the functions 0 to 7, are free"
    )]
    NotThere {
        /// The device's name.
        name: String,
        /// The address.
        address: PciAddress,
    },
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
    let chosen: BTreeSet<_> = devices
        .iter()
        .filter_map(|device| Some(device.slot?.device))
        .collect();
    let mut free = DEVICES.filter(|device| !chosen.contains(device));
    let devices = devices
        .into_iter()
        .map(
            |PciDeviceRequest {
                 name,
                 slot,
                 resource,
             }| {
                let next = || {
                    let function = 0;
                    free.next().map(|device| PciSlot { device, function })
                };
                match slot.or_else(next) {
                    Some(slot) => Ok(PciDeviceConfig {
                        name,
                        slot,
                        resource,
                    }),
                    None => Err(PciSlotError::Full { name }),
                }
            },
        )
        .collect::<Result<Vec<_>, _>>()?;
    check_pci_slots(&devices)?;
    Ok(devices)
}

/// Checks that each function is where a guest finds it. A configuration may come from anywhere.
pub fn check_pci_slots(devices: &[PciDeviceConfig]) -> Result<(), PciSlotError> {
    let mut taken = BTreeSet::new();
    for PciDeviceConfig { name, slot, .. } in devices {
        let (name, address) = (name.clone(), slot.address());
        if !DEVICES.contains(&slot.device) || slot.function > 7 {
            return Err(PciSlotError::NotThere { name, address });
        }
        if !taken.insert(*slot) {
            return Err(PciSlotError::Taken { name, address });
        }
    }
    for PciDeviceConfig { name, slot, .. } in devices {
        let zero = PciSlot {
            function: 0,
            ..*slot
        };
        if !taken.contains(&zero) {
            let (name, address) = (name.clone(), slot.address());
            return Err(PciSlotError::NoFunctionZero { name, address });
        }
    }
    Ok(())
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
        for slot in [(0, 0), (31, 0), (255, 0), (4, 8), (4, 255)] {
            let devices = vec![device("a", Some(slot))];
            let error = assign_pci_slots(devices).unwrap_err();
            assert!(matches!(error, PciSlotError::NotThere { .. }), "{error}");
        }
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
