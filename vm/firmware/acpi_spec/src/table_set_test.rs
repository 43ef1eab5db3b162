use super::*;
use crate::Processor;
use crate::platform::tests::full;

use crate::platform::tests::processors;
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::process::Command;

const BASE: u64 = 0x1_9000;

pub(crate) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// Walks from the RSDP to every table as an operating system does, and returns their signatures.
fn walk(placed: &PlacedTables) -> Vec<String> {
    let at = |address: u64| {
        let offset = usize::try_from(address - placed.base).unwrap();
        let length = u32_at(&placed.bytes, offset + 4) as usize;
        &placed.bytes[offset..offset + length]
    };
    assert_eq!(&placed.rsdp[..8], b"RSD PTR ");
    assert_eq!(placed.rsdp.len(), 36);
    assert_eq!(placed.rsdp[15], 2);
    assert_eq!(sum(&placed.rsdp[..20]), 0);
    assert_eq!(sum(&placed.rsdp), 0);
    let xsdt = at(u64_at(&placed.rsdp, 24));
    assert_eq!(sum(xsdt), 0);
    let mut found = Vec::new();
    for entry in xsdt[36..].as_chunks::<8>().0 {
        let table = at(u64::from_le_bytes(*entry));
        assert_eq!(sum(table), 0);
        found.push(String::from_utf8(table[..4].to_vec()).unwrap());
        if &table[..4] == b"FACP" {
            let facs = u64::from(u32_at(table, 36));
            assert_eq!(facs % 64, 0);
            assert_eq!(&at(facs)[..4], b"FACS");
            assert_eq!(
                u64_at(table, 132),
                0,
                "X_FIRMWARE_CTRL excludes FIRMWARE_CTRL"
            );
            let dsdt = u64_at(table, 140);
            assert_eq!(u64::from(u32_at(table, 40)), dsdt);
            assert_eq!(&at(dsdt)[..4], b"DSDT");
            assert_eq!(sum(at(dsdt)), 0);
        }
    }
    found
}

#[test]
fn every_table_is_reached_from_the_rsdp() {
    let set = TableSet::new(&full(processors(3))).unwrap();
    assert_eq!(walk(&set.place(BASE).unwrap()), ["FACP", "APIC"]);
}

#[test]
fn the_same_machine_is_the_same_bytes() {
    let place = || {
        TableSet::new(&full(processors(8)))
            .unwrap()
            .place(BASE)
            .unwrap()
    };
    assert_eq!(place(), place());
}

#[test]
fn devices_do_not_move_what_the_guest_writes_to() {
    let small = TableSet::new(&AcpiPlatform::bare(processors(1))).unwrap();
    let large = TableSet::new(&full(processors(64))).unwrap();
    assert_eq!(small.tables()[0].signature, *b"FACS");
    assert_eq!(
        small.place(BASE).unwrap().addresses[0],
        large.place(BASE).unwrap().addresses[0]
    );
    // The hardware signature stays what it was when the guest went to sleep.
    let signature = |set: &TableSet| u32_at(&set.table(*b"FACS").unwrap().bytes, 8);
    assert_eq!(signature(&small), signature(&large));
}

#[test]
fn the_region_holds_2048_processors_and_refuses_what_does_not_fit() {
    let set = TableSet::new(&full(processors(2048))).unwrap();
    set.place(BASE).unwrap();
    let filler = Table::with_header(*b"SSDT", 2, &vec![0; REGION_SIZE as usize]);
    let mut set = TableSet::new(&AcpiPlatform::bare(processors(1))).unwrap();
    set.tables.push(filler);
    assert!(matches!(
        set.place(BASE),
        Err(AcpiError::RegionOverflow { size }) if size as u64 > REGION_SIZE
    ));
}

#[test]
fn a_region_must_be_reachable_by_32_bit_pointers() {
    let set = TableSet::new(&AcpiPlatform::bare(processors(1))).unwrap();
    for base in [0x1_9001, FOUR_GIB - 4096, FOUR_GIB, u64::MAX - 4095] {
        assert_eq!(set.place(base), Err(AcpiError::RegionAddress { base }));
    }
    set.place(FOUR_GIB - REGION_SIZE).unwrap();
}

proptest! {
    #[test]
    fn any_processors_make_sound_tables(
        ids in proptest::collection::btree_map(0..u32::MAX, 0..u32::MAX, 1..40),
        base in 0u64..0xf_0000,
    ) {
        let mut seen = std::collections::BTreeSet::new();
        let cpus = ids
            .iter()
            .filter(|(_, apic_id)| seen.insert(**apic_id))
            .map(|(uid, apic_id)| Processor { uid: *uid, apic_id: *apic_id })
            .collect();
        let set = TableSet::new(&full(cpus)).unwrap();
        walk(&set.place(base & !0xfff).unwrap());
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
fn round_trip(machine: &AcpiPlatform) -> Vec<(String, String)> {
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
    let listings = round_trip(&AcpiPlatform::bare(processors(1)));
    let dsdt = listing(&listings, "DSDT");
    assert!(dsdt.contains("_S5") && !dsdt.contains("_S4"), "{dsdt}");
    for absent in ["PNP0501", "PNP0B00", "PNP0303", "QEMU0001"] {
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
    for device in ["COM1", "COM4", "PNP0B00", "PNP0303", "QEMU0001", "C003"] {
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
