//! The namespace: DSDT (ACPI 6.5, 5.2.11.1).
//!
//! Each function writes one kind of device into the body of `\_SB`; a further device is a further function
//! called from [`dsdt`], or AML handed in by the caller.

use crate::machine::ComPort;
use crate::machine::Hibernation;
use crate::machine::Machine;
use crate::machine::MmioWindows;
use crate::machine::Ps2Controller;
use crate::machine::Rtc;
use crate::pci;
use crate::sleep;
use crate::table::Table;
use acpi_tables::Aml;
use acpi_tables::aml::AddressSpace;
use acpi_tables::aml::AddressSpaceCacheable;
use acpi_tables::aml::Device;
use acpi_tables::aml::EISAName;
use acpi_tables::aml::IO;
use acpi_tables::aml::Interrupt;
use acpi_tables::aml::Name;
use acpi_tables::aml::Package;
use acpi_tables::aml::Path;
use acpi_tables::aml::ResourceTemplate;
use acpi_tables::aml::Scope;
use std::ops::Range;

/// Integers are 64 bits wide from this revision on.
const REVISION: u8 = 2;

/// Present, enabled, shown and working.
const STA_PRESENT: u8 = 0xf;

/// The sleep types that PM1 control takes (ACPI 6.5, 7.4.2).
const SLEEP_TYPE_S5: u8 = 0;
const SLEEP_TYPE_S4: u8 = 1;

/// The DSDT, with `extra` objects after the machine's own in `\_SB`.
pub(crate) fn dsdt(machine: &Machine, extra: &[&dyn Aml]) -> Table {
    let mut body = Vec::new();
    if machine.hibernation == Hibernation::S4 {
        sleep_state(&mut body, "_S4_", SLEEP_TYPE_S4);
    }
    sleep_state(&mut body, "_S5_", SLEEP_TYPE_S5);
    if let Some(announcements) = &machine.sleep_announcements {
        sleep::announcements(&mut body, announcements);
    }

    let mut devices = Vec::new();
    processors(&mut devices, machine);
    mmio_windows(&mut devices, &machine.mmio);
    for com in &machine.com_ports {
        let shared = machine
            .com_ports
            .iter()
            .any(|other| other.number != com.number && other.irq == com.irq);
        com_port(&mut devices, com, shared);
    }
    if let Some(rtc) = &machine.rtc {
        real_time_clock(&mut devices, rtc);
    }
    if let Some(ps2) = &machine.ps2 {
        ps2_controller(&mut devices, ps2);
    }
    if let Some(port) = machine.pvpanic_port {
        pvpanic(&mut devices, port);
    }
    if let Some(pci) = &machine.pci {
        pci::root_bridge(&mut devices, pci);
        pci::motherboard(&mut devices, pci);
    }
    for object in extra {
        object.to_aml_bytes(&mut devices);
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

fn processors(out: &mut Vec<u8>, machine: &Machine) {
    for (index, p) in machine.processors.iter().enumerate() {
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

/// A module device that hands the machine's MMIO windows down to devices beneath it.
fn mmio_windows(out: &mut Vec<u8>, mmio: &MmioWindows) {
    let windows: Vec<AddressSpace<u64>> = [&mmio.low, &mmio.high]
        .into_iter()
        .flatten()
        .map(window)
        .collect();
    if windows.is_empty() {
        return;
    }
    let resources = windows.iter().map(|w| w as &dyn Aml).collect();
    Device::new(
        Path::new("VMOD"),
        vec![
            &Name::new(Path::new("_HID"), &"ACPI0004"),
            &Name::new(Path::new("_UID"), &0u8),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(resources)),
        ],
    )
    .to_aml_bytes(out);
}

fn window(range: &Range<u64>) -> AddressSpace<u64> {
    AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        range.start,
        range.end - 1,
        None,
    )
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

fn real_time_clock(out: &mut Vec<u8>, rtc: &Rtc) {
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
    if let Some(irq) = ps2.mouse_irq {
        Device::new(
            Path::new("MOU0"),
            vec![
                &Name::new(Path::new("_HID"), &EISAName::new("PNP0F13")),
                &Name::new(Path::new("_STA"), &STA_PRESENT),
                &Name::new(
                    Path::new("_CRS"),
                    &ResourceTemplate::new(vec![&isa_interrupt(irq)]),
                ),
            ],
        )
        .to_aml_bytes(out);
    }
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
    use crate::iasl_test::full;
    use crate::iasl_test::processors;

    /// The bytes that follow `name` in the DSDT.
    fn after(table: &Table, name: &[u8]) -> Option<Vec<u8>> {
        let at = table.bytes.windows(name.len()).position(|w| w == name)?;
        Some(table.bytes[at + name.len()..].to_vec())
    }

    #[test]
    fn sleep_states_have_the_types_that_the_power_registers_know() {
        let mut machine = full(processors(1));
        let table = dsdt(&machine, &[]);
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
        machine.hibernation = Hibernation::NotOffered;
        assert_eq!(after(&dsdt(&machine, &[]), b"_S4_"), None);
    }

    #[test]
    fn further_objects_follow_the_machines_own() {
        let machine = full(processors(1));
        let hid = Name::new(Path::new("_HID"), &EISAName::new("PNP0A08"));
        let bridge = Device::new(Path::new("PCI0"), vec![&hid]);
        let table = dsdt(&machine, &[&bridge]);
        assert!(after(&table, b"PEVT").is_some());
        let mut expected = Vec::new();
        hid.to_aml_bytes(&mut expected);
        // The end of the table, so in the last scope.
        assert_eq!(after(&table, b"PCI0"), Some(expected));
    }

    #[test]
    fn ports_that_share_an_interrupt_say_so() {
        let mut machine = full(processors(1));
        let shared = |table: &Table, com: &[u8]| {
            let rest = after(table, com).unwrap();
            // The extended interrupt descriptor: its tag, its length, its flags.
            let at = rest.windows(3).position(|w| w == [0x89, 6, 0]).unwrap();
            rest[at + 3] & 1 << 3 != 0
        };
        assert!(shared(&dsdt(&machine, &[]), b"COM1"));
        machine.com_ports.truncate(2);
        assert!(!shared(&dsdt(&machine, &[]), b"COM1"));
    }
}
