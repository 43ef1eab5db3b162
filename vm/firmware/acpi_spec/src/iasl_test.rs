//! The tables as ACPICA's compiler reads them.

use crate::ComPort;
use crate::Hibernation;
use crate::InterruptControllers;
use crate::Machine;
use crate::MmioWindows;
use crate::PciRoot;
use crate::PmLayout;
use crate::Processor;
use crate::Ps2Controller;
use crate::ResetRegister;
use crate::Rtc;
use crate::SleepAnnouncements;
use crate::TableSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const BASE: u64 = 0x1_9000;

pub(crate) fn processors(count: u32) -> Vec<Processor> {
    (0..count)
        .map(|i| Processor {
            uid: i + 1,
            apic_id: i,
        })
        .collect()
}

/// A Q35-like machine.
pub(crate) fn pc_uefi(processors: Vec<Processor>) -> Machine {
    Machine {
        pm_base: 0x600,
        pm_layout: PmLayout::Ich9,
        reset: ResetRegister {
            port: 0xcf9,
            value: 6,
        },
        sleep_announcements: Some(SleepAnnouncements {
            port: 0x506,
            prepare: 0x10,
            wake: 0x20,
        }),
        mmio: MmioWindows::default(),
        pci: Some(PciRoot {
            last_bus: 255,
            ecam: Some(0xb000_0000),
            io: vec![0x6000..=0xffff],
            mmio: MmioWindows {
                low: Some(0xc000_0000..0xfc00_0000),
                high: Some(0x8_0000_0000..0x10_0000_0000),
            },
            first_gsi: 16,
        }),
        ..full(processors)
    }
}

pub(crate) fn full(processors: Vec<Processor>) -> Machine {
    let com = |number, base, irq| ComPort { number, base, irq };
    Machine {
        interrupt_controllers: InterruptControllers::IoApicAndPic,
        hibernation: Hibernation::S4,
        com_ports: vec![
            com(1, 0x3f8, 4),
            com(2, 0x2f8, 3),
            com(3, 0x3e8, 4),
            com(4, 0x2e8, 3),
        ],
        rtc: Some(Rtc {
            base: 0x70,
            irq: 8,
            century_index: Some(0x32),
        }),
        ps2: Some(Ps2Controller {
            keyboard_irq: 1,
            mouse_irq: Some(12),
        }),
        pvpanic_port: Some(0x505),
        mmio: MmioWindows {
            low: Some(0xc000_0000..0xfec0_0000),
            high: Some(0x10_0000_0000..0x20_0000_0000),
        },
        ..Machine::bare(processors)
    }
}

/// Runs iasl in `dir` and returns all that it says.
fn iasl(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("iasl")
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot run iasl, which the tests of ACPI tables need (Debian: apt install acpica-tools): {error}")
        });
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "iasl {args:?}: {text}");
    text
}

/// Disassembles each table and compiles it again; returns the listing of each.
fn round_trip(machine: &Machine) -> Vec<(String, String)> {
    let set = TableSet::new(machine).unwrap();
    let placed = set.place(BASE).unwrap();
    // Not the RSDP: iasl takes it for no table.
    let mut files = Vec::new();
    for (table, address) in set.tables().iter().zip(&placed.addresses) {
        let offset = usize::try_from(address - BASE).unwrap();
        let bytes = placed.bytes[offset..offset + table.bytes.len()].to_vec();
        files.push((String::from_utf8(table.signature.to_vec()).unwrap(), bytes));
    }
    compiled_again(files)
}

/// Disassembles each of the named tables and compiles it again; returns the listing of each.
pub(crate) fn compiled_again(files: Vec<(String, Vec<u8>)>) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let mut listings = Vec::new();
    for (name, bytes) in files {
        let original = format!("{name}.dat");
        fs::write(dir.path().join(&original), &bytes).unwrap();
        let said = iasl(dir.path(), &["-d", &original]);
        let listing = fs::read_to_string(dir.path().join(format!("{name}.dsl"))).unwrap();
        for complaint in [
            "warning",
            "error",
            "incorrect",
            "invalid",
            "unknown",
            "should be",
        ] {
            assert!(
                !said.to_lowercase().contains(complaint)
                    && !listing.to_lowercase().contains(complaint),
                "iasl complains about {name}: {said}\n{listing}"
            );
        }
        // -oa: no optimizations, so that the compiler's output can be compared.
        let said = iasl(
            dir.path(),
            &[
                "-oa",
                "-p",
                &format!("{name}-again"),
                &format!("{name}.dsl"),
            ],
        );
        assert!(
            said.contains("0 Errors, 0 Warnings"),
            "iasl cannot compile {name} cleanly: {said}\n{listing}"
        );
        let again = fs::read(dir.path().join(format!("{name}-again.aml"))).unwrap();
        assert_eq!(
            again.len(),
            bytes.len(),
            "{name} changes its length: {listing}"
        );
        // The compiler puts its own name and checksum into the header.
        if again.len() > 36 && name != "FACS" {
            assert_eq!(
                again[36..],
                bytes[36..],
                "{name} changes its content: {listing}"
            );
        }
        listings.push((name, listing));
    }
    listings
}

pub(crate) fn listing<'a>(listings: &'a [(String, String)], name: &str) -> &'a str {
    &listings.iter().find(|(n, _)| n == name).unwrap().1
}

/// The values of the lines `field : value` of a data table's listing.
pub(crate) fn values<'a>(listing: &'a str, field: &str) -> Vec<&'a str> {
    listing
        .lines()
        .filter_map(|line| {
            let line = line.split_once(']').map_or(line, |(_, rest)| rest);
            let (name, value) = line.split_once(" : ")?;
            (name.trim() == field).then_some(value.trim())
        })
        .collect()
}

#[test]
fn one_processor_and_nothing_else() {
    let listings = round_trip(&Machine::bare(processors(1)));
    let dsdt = listing(&listings, "DSDT");
    assert!(dsdt.contains("_S5") && !dsdt.contains("_S4"), "{dsdt}");
    for absent in ["PNP0501", "PNP0B00", "PNP0303", "QEMU0001", "ACPI0004"] {
        assert!(!dsdt.contains(absent), "{absent} in {dsdt}");
    }
    let madt = listing(&listings, "APIC");
    assert_eq!(values(madt, "PC-AT Compatibility"), ["0"], "{madt}");
    // Only the SCI's override without a PIC.
    assert_eq!(values(madt, "Source"), ["09"], "{madt}");
    assert_eq!(values(madt, "Polarity")[0], "1");
    assert_eq!(values(madt, "Trigger Mode")[0], "3");
}

#[test]
fn four_processors_and_every_device() {
    let listings = round_trip(&full(processors(4)));
    let dsdt = listing(&listings, "DSDT");
    for device in [
        "COM1", "COM4", "PNP0B00", "PNP0303", "PNP0F13", "QEMU0001", "ACPI0004", "C003",
    ] {
        assert!(dsdt.contains(device), "no {device} in {dsdt}");
    }
    assert!(dsdt.contains("Name (_S4, Package (0x04)"), "{dsdt}");

    let madt = listing(&listings, "APIC");
    assert_eq!(values(madt, "PC-AT Compatibility"), ["1"]);
    assert_eq!(values(madt, "Source"), ["00", "09"]);
    // The I/O APIC's first input, then where the overrides lead.
    assert_eq!(
        values(madt, "Interrupt"),
        ["00000000", "00000002", "00000009"]
    );
    assert_eq!(values(madt, "Local Apic ID"), ["00", "01", "02", "03"]);

    let fadt = listing(&listings, "FACP");
    assert_eq!(values(fadt, "SCI Interrupt"), ["0009"]);
    assert_eq!(values(fadt, "SMI Command Port"), ["00000000"]);
    assert_eq!(values(fadt, "Control Method Power Button (V1)"), ["0"]);
    assert_eq!(values(fadt, "Control Method Sleep Button (V1)"), ["1"]);
    assert_eq!(values(fadt, "Reset Register Supported (V2)"), ["1"]);
    assert_eq!(values(fadt, "Value to cause reset"), ["01"]);
    assert_eq!(values(fadt, "Hardware Reduced (V5)"), ["0"]);
    assert_eq!(values(fadt, "8042 Present on ports 60/64 (V2)"), ["1"]);
    assert_eq!(values(fadt, "VGA Not Present (V4)"), ["1"]);
    assert!(
        fadt.contains("0000000000000433"),
        "no reset register: {fadt}"
    );
    assert!(fadt.contains("0000000000000404"), "no PM1 control: {fadt}");
}

#[test]
fn sixty_four_processors() {
    let listings = round_trip(&full(processors(64)));
    assert!(listing(&listings, "DSDT").contains("C03F"));
    assert_eq!(
        values(listing(&listings, "APIC"), "Local Apic ID").len(),
        64
    );
}

#[test]
fn ids_past_a_local_apics_are_x2apics() {
    let mut cpus = processors(2);
    cpus.push(Processor {
        uid: 254,
        apic_id: 254,
    });
    cpus.push(Processor {
        uid: 255,
        apic_id: 100,
    });
    cpus.push(Processor {
        uid: 200,
        apic_id: 255,
    });
    cpus.push(Processor {
        uid: 300,
        apic_id: 0x1_0000,
    });
    let listings = round_trip(&full(cpus));
    let madt = listing(&listings, "APIC");
    assert_eq!(values(madt, "Local Apic ID"), ["00", "01", "FE"]);
    assert_eq!(
        values(madt, "Processor x2Apic ID"),
        ["00000064", "000000FF", "00010000"]
    );
    // Their NMI, too, besides the local APICs'.
    assert_eq!(values(madt, "Interrupt Input LINT"), ["01", "01"]);
}
