//! The PCI root bridge: its namespace objects (PCI Firmware Specification 3.3, 4) and the MCFG.

use crate::platform::PCI_CONFIG_PORTS;
use crate::platform::PCI_GSIS;
use crate::platform::PciRoot;
use crate::table::OEM_ID;
use crate::table::OEM_REVISION;
use crate::table::OEM_TABLE_ID;
use crate::table::Table;
use acpi_tables::Aml;
use acpi_tables::aml::AddressSpace;
use acpi_tables::aml::AddressSpaceCacheable;
use acpi_tables::aml::And;
use acpi_tables::aml::Arg;
use acpi_tables::aml::CreateDWordField;
use acpi_tables::aml::Device;
use acpi_tables::aml::EISAName;
use acpi_tables::aml::Else;
use acpi_tables::aml::Equal;
use acpi_tables::aml::IO;
use acpi_tables::aml::If;
use acpi_tables::aml::Local;
use acpi_tables::aml::Memory32Fixed;
use acpi_tables::aml::Method;
use acpi_tables::aml::Name;
use acpi_tables::aml::NotEqual;
use acpi_tables::aml::Or;
use acpi_tables::aml::Package;
use acpi_tables::aml::PackageBuilder;
use acpi_tables::aml::Path;
use acpi_tables::aml::ResourceTemplate;
use acpi_tables::aml::Return;
use acpi_tables::aml::Store;
use acpi_tables::aml::Uuid;
use acpi_tables::mcfg::MCFG;
use std::ops::Range;

const DEVICES_PER_BUS: u32 = 32;
const PINS: u32 = 4;

/// The interface of `_OSC` for PCI host bridges.
const OSC_UUID: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";

/// The features that `_OSC` grants to the operating system: only the PCI Express capability structure. There is no
/// hot-plug, power management event or error reporting.
const OSC_GRANTED: u32 = 1 << 4;

/// Status bits that `_OSC` returns.
mod osc_status {
    pub(super) const UNKNOWN_UUID: u32 = 1 << 2;
    pub(super) const UNKNOWN_REVISION: u32 = 1 << 3;
    pub(super) const MASKED: u32 = 1 << 4;
}

/// `\_SB.PCI0`.
pub(crate) fn root_bridge(out: &mut Vec<u8>, pci: &PciRoot) {
    let zero = 0u8;
    let mut body = Vec::new();
    Name::new(Path::new("_HID"), &EISAName::new("PNP0A08")).to_aml_bytes(&mut body);
    Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")).to_aml_bytes(&mut body);
    for name in ["_UID", "_SEG", "_BBN"] {
        Name::new(Path::new(name), &zero).to_aml_bytes(&mut body);
    }
    let (first, last) = (*PCI_CONFIG_PORTS.start(), *PCI_CONFIG_PORTS.end());
    let config = IO::new(first, first, 1, (last - first + 1) as u8);
    resources(&mut body, pci, &[&config]);
    routing(&mut body, pci);
    operating_system_capabilities(&mut body);
    Device::new(Path::new("PCI0"), vec![&Raw(body)]).to_aml_bytes(out);
}

/// `\_SB.PCI0` of a machine without configuration ports and interrupt pins: configuration space is in the ECAM, and
/// functions signal interrupts by messages.
pub(crate) fn express_root_bridge(out: &mut Vec<u8>, pci: &PciRoot) {
    let (zero, one) = (0u8, 1u8);
    let mut body = Vec::new();
    Name::new(Path::new("_HID"), &EISAName::new("PNP0A08")).to_aml_bytes(&mut body);
    Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")).to_aml_bytes(&mut body);
    for name in ["_UID", "_SEG", "_BBN"] {
        Name::new(Path::new(name), &zero).to_aml_bytes(&mut body);
    }
    Name::new(Path::new("_CCA"), &one).to_aml_bytes(&mut body);
    resources(&mut body, pci, &[]);
    operating_system_capabilities(&mut body);
    Device::new(Path::new("PCI0"), vec![&Raw(body)]).to_aml_bytes(out);
}

/// Encoded AML.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// `_CRS`: the windows of the bridge, and what it uses itself.
fn resources(out: &mut Vec<u8>, pci: &PciRoot, own: &[&dyn Aml]) {
    let buses = AddressSpace::new_bus_number(0u16, pci.last_bus.into());
    let ports: Vec<_> = pci
        .io
        .iter()
        .map(|window| AddressSpace::new_io(*window.start(), *window.end(), None))
        .collect();
    // Not every operating system accepts a window below 4 GiB in a 64-bit descriptor.
    let low = pci.mmio.low.as_ref().map(|window| {
        AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            window.start as u32,
            (window.end - 1) as u32,
            None,
        )
    });
    let high = pci.mmio.high.as_ref().map(|window: &Range<u64>| {
        AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            window.start,
            window.end - 1,
            None,
        )
    });
    let mut all: Vec<&dyn Aml> = vec![&buses];
    all.extend(own);
    all.extend(ports.iter().map(|window| window as &dyn Aml));
    all.extend(low.iter().map(|window| window as &dyn Aml));
    all.extend(high.iter().map(|window| window as &dyn Aml));
    Name::new(Path::new("_CRS"), &ResourceTemplate::new(all)).to_aml_bytes(out);
}

/// `_PRT`: the interrupt of each pin of each device. An entry without a link device names a level-triggered GSI.
fn routing(out: &mut Vec<u8>, pci: &PciRoot) {
    let zero = 0u8;
    let mut table = PackageBuilder::new();
    for device in 0..DEVICES_PER_BUS {
        // Every function of the device.
        let address = device << 16 | 0xffff;
        for pin in 0..PINS {
            let gsi = pci.first_gsi + (device + pin) % PCI_GSIS;
            table.add_element(&Package::new(vec![&address, &pin, &zero, &gsi]));
        }
    }
    Name::new(Path::new("_PRT"), &table).to_aml_bytes(out);
}

/// `_OSC` (PCI Firmware Specification 3.3, 4.5.1): grants [`OSC_GRANTED`], and reports if more was requested.
fn operating_system_capabilities(out: &mut Vec<u8>) {
    let (uuid, revision, buffer) = (Arg(0), Arg(1), Arg(3));
    let granted = Local(0);
    let (status, control) = (Path::new("CDW1"), Path::new("CDW3"));
    let (first, third, known_revision) = (0u8, 8u8, 1u8);
    let status_field = CreateDWordField::new(&status, &buffer, &first);
    let add_to_status = |bits: &'static u32| Or::new(&status, &status, bits);

    let known = Uuid::new(OSC_UUID);
    let is_known = Equal::new(&uuid, &known);
    let control_field = CreateDWordField::new(&control, &buffer, &third);
    let mask = And::new(&granted, &control, &OSC_GRANTED);
    let is_less = NotEqual::new(&granted, &control);
    let say_less = add_to_status(&osc_status::MASKED);
    let if_less = If::new(&is_less, vec![&say_less]);
    let grant = Store::new(&control, &granted);
    let other_revision = NotEqual::new(&revision, &known_revision);
    let say_revision = add_to_status(&osc_status::UNKNOWN_REVISION);
    let if_other_revision = If::new(&other_revision, vec![&say_revision]);
    let if_known = If::new(
        &is_known,
        vec![&control_field, &mask, &if_less, &grant, &if_other_revision],
    );
    let say_unknown = add_to_status(&osc_status::UNKNOWN_UUID);
    let otherwise = Else::new(vec![&say_unknown]);
    // Serialized, because it creates named objects.
    Method::new(
        Path::new("_OSC"),
        4,
        true,
        vec![&status_field, &if_known, &otherwise, &Return::new(&buffer)],
    )
    .to_aml_bytes(out);
}

/// The motherboard resources (PNP0C02) with the ECAM; without them operating systems do not trust the MCFG.
pub(crate) fn motherboard(out: &mut Vec<u8>, pci: &PciRoot) {
    let Some(ecam) = pci.ecam_range() else {
        return;
    };
    let zero = 0u8;
    let ecam = Memory32Fixed::new(false, ecam.start as u32, (ecam.end - ecam.start) as u32);
    Device::new(
        Path::new("MBRD"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0C02")),
            &Name::new(Path::new("_UID"), &zero),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&ecam])),
        ],
    )
    .to_aml_bytes(out);
}

/// The MCFG (PCI Firmware Specification 3.3, 4.1.2), if there is an ECAM.
pub(crate) fn mcfg(pci: &PciRoot) -> Option<Table> {
    let base = pci.ecam?;
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(base, 0, 0, pci.last_bus);
    let mut bytes = Vec::new();
    mcfg.to_aml_bytes(&mut bytes);
    let mut table = Table::from_complete(*b"MCFG", bytes);
    table.update_checksums();
    Some(table)
}
