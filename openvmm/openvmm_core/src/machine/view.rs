//! The platform view: what a hibernated guest relies on, to be compared when it is to resume.

use super::devices::DevicePlan;
use super::platform;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use platform_digest::AddressRange;
use platform_digest::BlobDigest;
use platform_digest::CpuidLeaf;
use platform_digest::DiskContent;
use platform_digest::MmioRange;
use platform_digest::PlatformDisk;
use platform_digest::PlatformProcessor;
use platform_digest::PlatformView;
use std::collections::BTreeMap;
use virt::GuestProcessor;
use virt::Topology;

/// What is compared beside the machine's shape. Nothing is, and nothing is read, where the VM does not hibernate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    pub disks: Option<Vec<PlatformDisk>>,
    pub processor: Option<PlatformProcessor>,
}

/// What a guest is told of its processors.
pub(crate) fn platform_processor(topology: &Topology, guest: &GuestProcessor) -> PlatformProcessor {
    let cpuid = guest.cpuid.iter().map(|entry| CpuidLeaf {
        leaf: entry.leaf,
        subleaf: entry.subleaf,
        registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
    });
    PlatformProcessor {
        vps_per_socket: topology.vps_per_socket(),
        threads_per_core: topology.threads_per_core(),
        tsc_khz: guest.tsc_khz.unwrap_or(0),
        cpuid: cpuid.collect(),
    }
}

/// The same machine, whatever is on its disks: a guest that runs may change that.
pub(crate) fn without_contents(view: &PlatformView) -> PlatformView {
    let mut view = view.clone();
    for disk in view.disks.iter_mut().flatten() {
        disk.content = DiskContent::NotRead;
    }
    view
}

/// The view of a machine that gives its firmware `files`, by name.
pub(crate) fn platform_view(
    devices: &DevicePlan,
    topology: &Topology,
    layout: &MemoryLayout,
    address_bits: u8,
    files: &BTreeMap<String, Vec<u8>>,
) -> PlatformView {
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
    PlatformView {
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
        devices: devices.identities(),
        ..PlatformView::default()
    }
}

fn address_range(range: &MemoryRange) -> AddressRange {
    AddressRange::new(range.start, range.len())
}

fn digest(files: &BTreeMap<String, Vec<u8>>, folder: &str) -> BlobDigest {
    let matching = files.iter().filter(|(name, _)| name.starts_with(folder));
    BlobDigest::of(matching.map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
}
