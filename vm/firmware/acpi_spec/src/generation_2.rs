//! The tables for the firmware of Hyper-V's generation-2 VMs, which makes FADT, FACS, DSDT and the root tables itself.

use crate::AcpiError;
use crate::madt;
use crate::pci;
use crate::platform::AcpiPlatform;
use crate::table::Table;
use acpi_tables::Aml;
use acpi_tables::aml::Device;
use acpi_tables::aml::EISAName;
use acpi_tables::aml::Method;
use acpi_tables::aml::Name;
use acpi_tables::aml::Notify;
use acpi_tables::aml::Path;
use acpi_tables::aml::Scope;

/// The notification value for a button that was pressed.
const PRESSED: u8 = 0x80;

const SSDT_REVISION: u8 = 2;

/// The tables that such firmware is given for `platform`: MADT, MCFG if there is PCI, and an SSDT with the PCI root bridge
/// and a power button, which raises the general-purpose event `power_button` (0 to 15). The firmware's own tables have no
/// button.
///
/// They have no pointers, so they can be anywhere.
pub fn generation_2_tables(
    platform: &AcpiPlatform,
    power_button: u8,
) -> Result<Vec<Table>, AcpiError> {
    platform.validate()?;
    if power_button > 15 {
        return Err(AcpiError::Event {
            event: power_button,
        });
    }
    let mut tables = vec![madt::madt(platform)];
    tables.extend(platform.pci.as_ref().and_then(pci::mcfg));
    tables.push(ssdt(platform, power_button));
    Ok(tables)
}

fn ssdt(platform: &AcpiPlatform, power_button: u8) -> Table {
    let mut body = Vec::new();
    let handler = format!("_E{power_button:02X}");
    let button = Path::new("\\_SB_.PWRB");
    let notify = Notify::new(&button, &PRESSED);
    let handler = Method::new(Path::new(&handler), 0, false, vec![&notify]);
    Scope::new(Path::new("\\_GPE"), vec![&handler]).to_aml_bytes(&mut body);

    let mut devices = Vec::new();
    let hid = EISAName::new("PNP0C0C");
    let hid = Name::new(Path::new("_HID"), &hid);
    Device::new(Path::new("PWRB"), vec![&hid]).to_aml_bytes(&mut devices);
    if let Some(root) = &platform.pci {
        pci::express_root_bridge(&mut devices, root);
        pci::motherboard(&mut devices, root);
    }
    body.extend(Scope::raw(Path::new("\\_SB_"), devices));
    Table::with_header(*b"SSDT", SSDT_REVISION, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MmioWindows;
    use crate::PciRoot;
    use crate::Processor;

    fn platform(pci: bool) -> AcpiPlatform {
        let processors = (0..2).map(|n| Processor {
            uid: n + 1,
            apic_id: n,
        });
        AcpiPlatform {
            pci: pci.then(|| PciRoot {
                last_bus: 0,
                ecam: Some(0xb000_0000),
                io: Vec::new(),
                mmio: MmioWindows {
                    low: Some(0xc000_0000..0xf800_0000),
                    high: Some(8 << 32..16 << 32),
                },
                first_gsi: 16,
            }),
            ..AcpiPlatform::bare(processors.collect())
        }
    }

    fn contains(table: &Table, part: &[u8]) -> bool {
        table.bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn a_machine_without_pci_has_processors_and_a_button() {
        let tables = generation_2_tables(&platform(false), 8).unwrap();
        let signatures: Vec<_> = tables.iter().map(|table| table.signature).collect();
        assert_eq!(signatures, [*b"APIC", *b"SSDT"]);
        for table in &tables {
            let sum = table
                .bytes
                .iter()
                .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!(sum, 0);
            assert_eq!(table.bytes[4..8], (table.bytes.len() as u32).to_le_bytes());
            assert!(table.pointers.is_empty());
        }
        assert!(contains(&tables[1], b"PWRB"));
        assert!(contains(&tables[1], b"_E08"));
        assert!(!contains(&tables[1], b"PCI0"));
    }

    #[test]
    fn a_root_bridge_is_as_firmware_programs_it() {
        let tables = generation_2_tables(&platform(true), 9).unwrap();
        let signatures: Vec<_> = tables.iter().map(|table| table.signature).collect();
        assert_eq!(signatures, [*b"APIC", *b"MCFG", *b"SSDT"]);
        let ssdt = &tables[2];
        for name in [b"PCI0", b"_CRS", b"_OSC", b"_CCA", b"MBRD", b"_E09"] {
            assert!(contains(ssdt, name), "{}", name.escape_ascii());
        }
        // Neither pins nor configuration ports (a descriptor of ports from 0xcf8).
        assert!(!contains(ssdt, b"_PRT"));
        assert!(!contains(ssdt, &[0x47, 0x01, 0xf8, 0x0c]));
        // The last addresses of both windows.
        assert!(contains(ssdt, &0xf7ff_ffff_u32.to_le_bytes()));
        assert!(contains(ssdt, &0xf_ffff_ffff_u64.to_le_bytes()));
    }

    #[test]
    fn impossible_platforms_are_refused() {
        let error = generation_2_tables(&platform(false), 16).unwrap_err();
        assert!(matches!(error, AcpiError::Event { event: 16 }));
        let none = AcpiPlatform::bare(Vec::new());
        assert!(generation_2_tables(&none, 8).is_err());
    }
}
