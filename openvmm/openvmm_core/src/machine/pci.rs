//! The PCI functions that a configuration adds.

use super::inventory;
use super::platform::PCI_FIRST_GSI;
use chipset_device::LineInterrupt;
use chipset_device::PciAddress;
use guest_memory::GuestMemory;
use machine_parts::PartitionDoorbells;
use machine_parts::PartitionMsis;
use openvmm_defs::config::PciDevice;
use openvmm_defs::config::PciDeviceKind;
use openvmm_defs::config::PciSlot;
use std::collections::BTreeSet;
use std::sync::Arc;
use virt::Partition;
use virtio::MultiFunction;
use virtio::TransportError;
use virtio::VirtioDevice;
use virtio::VirtioPciDevice;
use virtio_blk::BlkConfigError;
use virtio_blk::VirtioBlk;
use virtio_net::NetConfig;
use virtio_net::NetDevice;
use virtio_net::Tap;
use virtio_net::TapError;
use virtio_rng::EntropyDevice;
use virtio_rng::EntropyRate;
use vmotherboard::ChipsetBuilder;

/// A disk has a queue for each VP, up to this.
const MAX_DEFAULT_QUEUES: u16 = 4;

/// Why a PCI function cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PciError {
    /// Two functions were put in one place.
    #[error("{name} cannot be at {address}: another device is there")]
    Taken {
        /// The device's name.
        name: String,
        /// The place.
        address: PciAddress,
    },
    /// Guests look at function 0 first, and at the others only if it is there.
    #[error(
        "{name} is alone at {address}, where no guest finds it: function 0 of the device is missing"
    )]
    NoFunctionZero {
        /// The device's name.
        name: String,
        /// The place.
        address: PciAddress,
    },
    /// Bus 0 is full.
    #[error("there is no free PCI slot for {name}")]
    Full {
        /// The device's name.
        name: String,
    },
    /// A disk cannot be opened.
    #[error("{name} cannot be opened")]
    Disk {
        /// The device's name.
        name: String,
        /// What went wrong.
        #[source]
        source: disk_spec::OpenError,
    },
    /// A disk cannot be shown as asked.
    #[error("{name} cannot be as it is configured")]
    DiskConfig {
        /// The device's name.
        name: String,
        /// What went wrong.
        #[source]
        source: BlkConfigError,
    },
    /// A network interface has no other end.
    #[error("{name} cannot be connected")]
    Tap {
        /// The device's name.
        name: String,
        /// What went wrong.
        #[source]
        source: TapError,
    },
    /// The virtio transport failed.
    #[error("{name} cannot be plugged in")]
    Transport {
        /// The device's name.
        name: String,
        /// What went wrong.
        #[source]
        source: TransportError,
    },
}

/// Finds a place for each device that has none: the lowest free device number.
pub(crate) fn assign(devices: &[PciDevice]) -> Result<Vec<PciAddress>, PciError> {
    let mut taken = BTreeSet::new();
    for device in devices {
        if let Some(slot) = device.slot
            && !taken.insert(slot)
        {
            return Err(PciError::Taken {
                name: device.name.clone(),
                address: address(slot),
            });
        }
    }
    let fixed: BTreeSet<u8> = taken.iter().map(|slot| slot.device).collect();
    let mut free = (1..=30).filter(|device| !fixed.contains(device));
    devices
        .iter()
        .map(|device| match device.slot {
            Some(slot) => {
                let zero = PciSlot {
                    function: 0,
                    ..slot
                };
                match taken.contains(&zero) {
                    true => Ok(address(slot)),
                    false => Err(PciError::NoFunctionZero {
                        name: device.name.clone(),
                        address: address(slot),
                    }),
                }
            }
            None => match free.next() {
                Some(device) => Ok(address(PciSlot {
                    device,
                    function: 0,
                })),
                None => Err(PciError::Full {
                    name: device.name.clone(),
                }),
            },
        })
        .collect()
}

fn address(slot: PciSlot) -> PciAddress {
    PciAddress {
        bus: 0,
        device: slot.device,
        function: slot.function,
    }
}

/// The line that pin A of a device drives.
pub(crate) fn line_of(address: PciAddress) -> u32 {
    PCI_FIRST_GSI + u32::from(address.device % 8)
}

/// What PCI functions are plugged into.
pub(crate) struct PciSockets<'a> {
    pub builder: &'a mut ChipsetBuilder,
    pub memory: &'a GuestMemory,
    pub partition: &'a Arc<dyn Partition>,
    /// The VM's identity, from which MAC addresses are derived.
    pub uuid: [u8; 16],
    /// How many VPs there are.
    pub partition_vps: u16,
    pub line: &'a mut dyn FnMut(u32) -> LineInterrupt,
}

/// Where a device goes.
struct Place<'a> {
    name: &'a str,
    address: PciAddress,
    multi_function: MultiFunction,
}

impl PciSockets<'_> {
    /// Makes the devices.
    pub(crate) fn plug_in(&mut self, devices: &[PciDevice]) -> Result<(), PciError> {
        let addresses = assign(devices)?;
        let multi_function = |address: PciAddress| {
            let shares = |other: &PciAddress| other.device == address.device;
            match addresses.iter().filter(|other| shares(other)).count() {
                0 | 1 => MultiFunction::No,
                _ => MultiFunction::Yes,
            }
        };
        for (device, &address) in devices.iter().zip(&addresses) {
            let place = Place {
                name: &device.name,
                address,
                multi_function: multi_function(address),
            };
            match &device.kind {
                PciDeviceKind::VirtioBlk(disk) => {
                    let opened = disk.open().map_err(|source| PciError::Disk {
                        name: device.name.clone(),
                        source,
                    })?;
                    let queues = self.partition_vps.min(MAX_DEFAULT_QUEUES);
                    let config =
                        disk.blk_config(queues)
                            .map_err(|source| PciError::DiskConfig {
                                name: device.name.clone(),
                                source,
                            })?;
                    self.virtio(&place, VirtioBlk::new(opened, config))?;
                }
                PciDeviceKind::VirtioNet(net) => {
                    let derived = || inventory::mac_address(self.uuid, &device.name);
                    let mac = net.mac.unwrap_or_else(derived);
                    let tap =
                        Tap::open(&net.tap, mac.other_end()).map_err(|source| PciError::Tap {
                            name: device.name.clone(),
                            source,
                        })?;
                    let config = NetConfig { mac, mtu: net.mtu };
                    self.virtio(&place, NetDevice::new(tap, config))?;
                }
                PciDeviceKind::VirtioRng => {
                    let rng = EntropyDevice::new(EntropyRate::default());
                    self.virtio(&place, rng)?;
                }
            }
        }
        Ok(())
    }

    fn virtio(&mut self, place: &Place<'_>, device: impl VirtioDevice) -> Result<(), PciError> {
        let Place {
            name,
            address,
            multi_function,
        } = *place;
        let line = (self.line)(line_of(address));
        let (memory, partition) = (self.memory, self.partition);
        let made = self.builder.try_add(name, |context| {
            VirtioPciDevice::new(
                device,
                virtio::PciConnection {
                    name: name.to_owned(),
                    address,
                    multi_function,
                    memory,
                    msi: &PartitionMsis(partition.clone()),
                    line: Some(line),
                    doorbells: Arc::new(PartitionDoorbells(partition.clone())),
                    decoder: context.decoder(),
                },
            )
        });
        match made {
            Ok(_) => Ok(()),
            Err(source) => Err(PciError::Transport {
                name: name.to_owned(),
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, slot: Option<(u8, u8)>) -> PciDevice {
        PciDevice {
            name: name.to_owned(),
            slot: slot.map(|(device, function)| PciSlot { device, function }),
            kind: PciDeviceKind::VirtioRng,
        }
    }

    #[test]
    fn devices_without_a_slot_get_the_lowest_that_nobody_chose() {
        let devices = [
            device("a", None),
            device("b", Some((1, 0))),
            device("c", Some((3, 0))),
            device("d", None),
            device("e", Some((3, 5))),
        ];
        let places: Vec<_> = assign(&devices)
            .unwrap()
            .iter()
            .map(|address| (address.device, address.function))
            .collect();
        assert_eq!(places, [(2, 0), (1, 0), (3, 0), (4, 0), (3, 5)]);
    }

    #[test]
    fn impossible_places_are_refused() {
        let twice = [device("a", Some((4, 0))), device("b", Some((4, 0)))];
        assert!(matches!(assign(&twice), Err(PciError::Taken { .. })));
        let hidden = [device("a", Some((4, 1)))];
        assert!(matches!(
            assign(&hidden),
            Err(PciError::NoFunctionZero { .. })
        ));
        let many: Vec<_> = (0..31).map(|_| device("x", None)).collect();
        assert!(matches!(assign(&many), Err(PciError::Full { .. })));
        assert!(assign(&many[..30]).is_ok());
    }

    #[test]
    fn pins_go_round() {
        let line = |device| {
            line_of(address(PciSlot {
                device,
                function: 0,
            }))
        };
        assert_eq!(line(1), 17);
        assert_eq!(line(7), 23);
        assert_eq!(line(8), 16);
    }
}
