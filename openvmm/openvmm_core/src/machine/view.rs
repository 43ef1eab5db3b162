//! The platform view: what a hibernated guest relies on, to be compared when it is to resume.

use super::devices::DevicePlan;
use super::plan::MachineShape;
use super::platform;
use super::platform::PciWindows;
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
use virt::x86::CpuidEntry;

/// What is compared beside the machine's shape. Nothing is, and nothing is read, where the VM does not hibernate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    pub disks: Option<Vec<PlatformDisk>>,
    pub processor: Option<PlatformProcessor>,
}

/// What a guest is told of its processors.
pub(crate) fn platform_processor(topology: &Topology, guest: &GuestProcessor) -> PlatformProcessor {
    PlatformProcessor {
        vps_per_socket: topology.vps_per_socket(),
        threads_per_core: topology.threads_per_core(),
        tsc_khz: guest.tsc_khz.unwrap_or(0),
        cpuid: cpuid(&guest.cpuid),
    }
}

/// A CPUID table.
pub(crate) fn cpuid(table: &[CpuidEntry]) -> Vec<CpuidLeaf> {
    let leaves = table.iter().map(|entry| CpuidLeaf {
        leaf: entry.leaf,
        subleaf: entry.subleaf,
        registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
    });
    leaves.collect()
}

/// The same machine, whatever is on its disks: a guest that runs may change that.
pub(crate) fn without_contents(view: &PlatformView) -> PlatformView {
    let mut view = view.clone();
    for disk in view.disks.iter_mut().flatten() {
        disk.content = DiskContent::NotRead;
    }
    view
}

/// What of `machine` every firmware's guest relies on: neither MMIO nor what the firmware is given.
pub(crate) fn platform_view(devices: &DevicePlan, machine: &MachineShape<'_>) -> PlatformView {
    let details = machine.details;
    PlatformView {
        ram: machine.layout.ram().iter().map(address_range).collect(),
        apic_ids: machine.topology.vps().iter().map(|vp| vp.apic_id).collect(),
        devices: devices.identities(),
        disks: details.disks.clone(),
        processor: details.processor.clone(),
        ..PlatformView::default()
    }
}

/// Where PCI configuration space and functions are.
pub(crate) fn pci_ranges(windows: &PciWindows) -> Vec<MmioRange> {
    let ecam = MemoryRange {
        start: windows.ecam,
        end: windows.ecam + ((u64::from(platform::PCI_LAST_BUS) + 1) << 20),
    };
    let ranges = [
        ("ecam", Some(ecam)),
        ("pci32", Some(windows.low)),
        ("pci64", windows.high),
    ];
    let named = ranges.into_iter();
    named
        .filter_map(|(name, range)| Some(mmio_range(name, &range?)))
        .collect()
}

/// A range that is not RAM.
pub(crate) fn mmio_range(name: &str, range: &MemoryRange) -> MmioRange {
    MmioRange {
        name: name.to_owned(),
        range: address_range(range),
    }
}

fn address_range(range: &MemoryRange) -> AddressRange {
    AddressRange::new(range.start, range.len())
}

/// The digest of the files in `folder`.
pub(crate) fn digest(files: &BTreeMap<String, Vec<u8>>, folder: &str) -> BlobDigest {
    let matching = files.iter().filter(|(name, _)| name.starts_with(folder));
    BlobDigest::of(matching.map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
}
