//! What a hibernated guest takes for granted about the machine, to be compared when it is to resume.

use super::inventory;
use super::pci;
use super::pci::PciError;
use super::platform;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use openvmm_defs::config::PciDeviceKind;
use openvmm_defs::config::SerialConfig;
use openvmm_defs::config::VmConfig;
use platform_digest::AddressRange;
use platform_digest::BlobDigest;
use platform_digest::Device;
use platform_digest::MmioRange;
use platform_digest::PlatformView;
use std::collections::BTreeMap;
use virt::IrqchipMode;
use virt::Topology;

/// The longest identity of a device that is compared.
const MAX_IDENTITY: usize = 200;

/// The view of a machine that gives its firmware `files`.
pub(crate) fn platform_view(
    config: &VmConfig,
    topology: &Topology,
    layout: &MemoryLayout,
    address_bits: u8,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<PlatformView, PciError> {
    let ram_end = layout.ram().last().map_or(0, |ram| ram.end);
    let ecam = MemoryRange {
        start: platform::ECAM_BASE,
        end: platform::ECAM_BASE + ((u64::from(platform::PCI_LAST_BUS) + 1) << 20),
    };
    let mmio = [
        ("ecam", Some(ecam)),
        ("pci32", Some(platform::PCI_LOW)),
        ("pci64", platform::pci_high(ram_end, address_bits)),
    ];
    Ok(PlatformView {
        ram: layout.ram().iter().map(address_range).collect(),
        mmio: mmio
            .into_iter()
            .filter_map(|(name, range)| {
                Some(MmioRange {
                    name: name.to_owned(),
                    range: address_range(&range?),
                })
            })
            .collect(),
        apic_ids: topology.vps().iter().map(|vp| vp.apic_id).collect(),
        acpi: digest(files, "etc/acpi/"),
        smbios: digest(files, "etc/smbios/"),
        devices: devices(config)?,
    })
}

fn address_range(range: &MemoryRange) -> AddressRange {
    AddressRange::new(range.start, range.len())
}

fn digest(files: &BTreeMap<String, Vec<u8>>, folder: &str) -> BlobDigest {
    let matching = files.iter().filter(|(name, _)| name.starts_with(folder));
    BlobDigest::of(matching.map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
}

fn devices(config: &VmConfig) -> Result<Vec<Device>, PciError> {
    let mut devices = Vec::new();
    for (device, address) in config
        .pci_devices
        .iter()
        .zip(pci::assign(&config.pci_devices)?)
    {
        let identity = match &device.kind {
            PciDeviceKind::VirtioBlk(disk) => match &disk.serial {
                Some(serial) => format!("virtio-blk {serial}"),
                None => "virtio-blk".to_owned(),
            },
            PciDeviceKind::VirtioNet(net) => {
                let derived = || inventory::mac_address(config.uuid, &device.name);
                format!("virtio-net {}", net.mac.unwrap_or_else(derived))
            }
            PciDeviceKind::VirtioRng => "virtio-rng".to_owned(),
        };
        devices.push(Device {
            name: device.name.clone(),
            pci: Some(address),
            identity: identity.chars().take(MAX_IDENTITY).collect(),
        });
    }
    for ((name, _, _), port) in platform::COM.iter().zip(&config.com_ports) {
        if *port != SerialConfig::None {
            devices.push(Device {
                name: (*name).to_owned(),
                pci: None,
                identity: "16550".to_owned(),
            });
        }
    }
    if config.irqchip == IrqchipMode::Split {
        devices.push(Device {
            name: "ioapic".to_owned(),
            pci: None,
            identity: "without PIC and PIT".to_owned(),
        });
    }
    Ok(devices)
}
