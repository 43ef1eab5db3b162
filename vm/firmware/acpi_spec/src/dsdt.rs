//! The namespace: DSDT (ACPI 6.5, 5.2.11.1).
//!
//! Each function writes one kind of device into the body of `\_SB`.

use crate::pci;
use crate::platform::AcpiPlatform;
use crate::platform::ComPort;
use crate::platform::Ps2Controller;
use crate::platform::RtcResources;
use crate::platform::S4Support;
use crate::sleep;
use crate::table::Table;
use acpi_tables::Aml;
use acpi_tables::aml::Device;
use acpi_tables::aml::EISAName;
use acpi_tables::aml::IO;
use acpi_tables::aml::Interrupt;
use acpi_tables::aml::Name;
use acpi_tables::aml::Package;
use acpi_tables::aml::Path;
use acpi_tables::aml::ResourceTemplate;
use acpi_tables::aml::Scope;

/// Integers are 64 bits wide from this revision on.
const REVISION: u8 = 2;

/// `_STA`: present, enabled, shown and working.
const STA_PRESENT: u8 = 0xf;

/// The sleep types that PM1 control takes (ACPI 6.5, 7.4.2).
const SLEEP_TYPE_S5: u8 = 0;
const SLEEP_TYPE_S4: u8 = 1;

/// The DSDT.
pub(crate) fn dsdt(platform: &AcpiPlatform) -> Table {
    let mut body = Vec::new();
    if platform.s4 == S4Support::Offered {
        sleep_state(&mut body, "_S4_", SLEEP_TYPE_S4);
    }
    sleep_state(&mut body, "_S5_", SLEEP_TYPE_S5);
    if let Some(announcements) = &platform.sleep_announcements {
        sleep::announcements(&mut body, announcements);
    }

    let mut devices = Vec::new();
    processors(&mut devices, platform);
    for com in &platform.com_ports {
        let shared = platform
            .com_ports
            .iter()
            .any(|other| other.number != com.number && other.irq == com.irq);
        com_port(&mut devices, com, shared);
    }
    if let Some(rtc) = &platform.rtc {
        real_time_clock(&mut devices, rtc);
    }
    if let Some(ps2) = &platform.ps2 {
        ps2_controller(&mut devices, ps2);
    }
    if let Some(port) = platform.pvpanic_port {
        pvpanic(&mut devices, port);
    }
    if let Some(pci) = &platform.pci {
        pci::root_bridge(&mut devices, pci);
        pci::motherboard(&mut devices, pci);
    }
    body.extend(Scope::raw(Path::new("\\_SB_"), devices));
    Table::with_header(*b"DSDT", REVISION, &body)
}

/// `\_Sx`: the sleep types for PM1a and PM1b, and two reserved elements (7.4.2).
fn sleep_state(out: &mut Vec<u8>, name: &str, sleep_type: u8) {
    let reserved = 0u8;
    Name::new(
        Path::new(name),
        &Package::new(vec![&sleep_type, &sleep_type, &reserved, &reserved]),
    )
    .to_aml_bytes(out);
}

fn processors(out: &mut Vec<u8>, platform: &AcpiPlatform) {
    for (index, p) in platform.processors.iter().enumerate() {
        let name = format!("C{index:03X}");
        Device::new(
            Path::new(&name),
            vec![
                &Name::new(Path::new("_HID"), &"ACPI0007"),
                &Name::new(Path::new("_UID"), &p.uid),
            ],
        )
        .to_aml_bytes(out);
    }
}

fn com_port(out: &mut Vec<u8>, com: &ComPort, shared_irq: bool) {
    let name = format!("COM{}", com.number);
    Device::new(
        Path::new(&name),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &com.number),
            &Name::new(Path::new("_DDN"), &name.clone()),
            &Name::new(Path::new("_STA"), &STA_PRESENT),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &IO::new(com.base, com.base, 1, 8),
                    &Interrupt::new(true, true, false, shared_irq, com.irq.into()),
                ]),
            ),
        ],
    )
    .to_aml_bytes(out);
}

fn real_time_clock(out: &mut Vec<u8>, rtc: &RtcResources) {
    Device::new(
        Path::new("RTC0"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0B00")),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &IO::new(rtc.base, rtc.base, 1, 2),
                    &isa_interrupt(rtc.irq),
                ]),
            ),
        ],
    )
    .to_aml_bytes(out);
}

fn ps2_controller(out: &mut Vec<u8>, ps2: &Ps2Controller) {
    Device::new(
        Path::new("KBD0"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0303")),
            &Name::new(Path::new("_STA"), &STA_PRESENT),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &IO::new(0x60, 0x60, 1, 1),
                    &IO::new(0x64, 0x64, 1, 1),
                    &isa_interrupt(ps2.keyboard_irq),
                ]),
            ),
        ],
    )
    .to_aml_bytes(out);
}

fn pvpanic(out: &mut Vec<u8>, port: u16) {
    Device::new(
        Path::new("PEVT"),
        vec![
            &Name::new(Path::new("_HID"), &"QEMU0001"),
            &Name::new(Path::new("_STA"), &STA_PRESENT),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&IO::new(port, port, 1, 1)]),
            ),
        ],
    )
    .to_aml_bytes(out);
}

/// An edge-triggered, active-high interrupt that no other device shares.
fn isa_interrupt(irq: u8) -> Interrupt {
    Interrupt::new(true, true, false, false, irq.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::tests::full;
    use crate::platform::tests::processors;

    /// The bytes that follow `name` in the DSDT.
    fn after(table: &Table, name: &[u8]) -> Option<Vec<u8>> {
        let at = table.bytes.windows(name.len()).position(|w| w == name)?;
        Some(table.bytes[at + name.len()..].to_vec())
    }

    #[test]
    fn sleep_states_have_the_types_that_the_power_registers_know() {
        let mut platform = full(processors(1));
        let table = dsdt(&platform);
        // A package of 6 bytes and 4 elements.
        assert!(
            after(&table, b"_S4_")
                .unwrap()
                .starts_with(&[0x12, 6, 4, 1, 1, 0, 0])
        );
        assert!(
            after(&table, b"_S5_")
                .unwrap()
                .starts_with(&[0x12, 6, 4, 0, 0, 0, 0])
        );
        platform.s4 = S4Support::NotOffered;
        assert_eq!(after(&dsdt(&platform), b"_S4_"), None);
    }

    #[test]
    fn ports_that_share_an_interrupt_say_so() {
        let mut platform = full(processors(1));
        let shared = |table: &Table, com: &[u8]| {
            let rest = after(table, com).unwrap();
            // The extended interrupt descriptor: its tag, its length, its flags.
            let at = rest.windows(3).position(|w| w == [0x89, 6, 0]).unwrap();
            rest[at + 3] & 1 << 3 != 0
        };
        assert!(shared(&dsdt(&platform), b"COM1"));
        platform.com_ports.truncate(2);
        assert!(!shared(&dsdt(&platform), b"COM1"));
    }
}
