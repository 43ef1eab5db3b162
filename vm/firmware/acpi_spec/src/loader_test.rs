//! Loader scripts, run as a firmware runs them.

use crate::AcpiError;
use crate::AcpiPlatform;
use crate::GENERATION_ID_ADDRESS_FILE;
use crate::GENERATION_ID_ADDRESS_LEN;
use crate::GENERATION_ID_FILE;
use crate::GENERATION_ID_OFFSET;
use crate::LoaderFile;
use crate::RSDP_FILE;
use crate::S4Support;
use crate::SCRIPT_FILE;
use crate::TABLES_FILE;
use crate::TableSet;
use crate::platform::tests::full;
use crate::platform::tests::pc_uefi;
use crate::platform::tests::processors;
use crate::table_set::tests::compiled_again;
use crate::table_set::tests::listing;
use crate::table_set::tests::sum;
use crate::table_set::tests::u32_at;
use crate::table_set::tests::u64_at;
use crate::table_set::tests::values;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::process::Command;

/// A firmware's memory after it ran a script.
struct Firmware {
    /// By name: address and content.
    files: BTreeMap<String, (u64, Vec<u8>)>,
    /// What was written back to writable files.
    written: BTreeMap<String, Vec<u8>>,
    /// The targets of all pointers, in the order of the commands.
    targets: Vec<u64>,
    /// Zones, by file.
    zones: BTreeMap<String, u8>,
}

fn text(bytes: &[u8]) -> String {
    assert_eq!(bytes[55], 0, "a name without an end");
    let end = bytes.iter().position(|b| *b == 0).unwrap();
    assert_eq!(bytes[end..], vec![0; bytes.len() - end]);
    String::from_utf8(bytes[..end].to_vec()).unwrap()
}

impl Firmware {
    fn run(files: &[LoaderFile]) -> Self {
        let file = |name: &str| {
            let file = files.iter().find(|f| f.name == name);
            file.unwrap_or_else(|| panic!("no file {name}"))
                .bytes
                .clone()
        };
        let script = file(SCRIPT_FILE);
        assert_eq!(script.len() % 128, 0);
        let mut firmware = Self {
            files: BTreeMap::new(),
            written: BTreeMap::new(),
            targets: Vec::new(),
            zones: BTreeMap::new(),
        };
        let mut next = 0x7fe0_1000;
        for c in script.as_chunks::<128>().0 {
            let name = text(&c[4..60]);
            match u32_at(c, 0) {
                1 => {
                    let alignment = u64::from(u32_at(c, 60));
                    assert!(alignment.is_power_of_two() && alignment <= 4096);
                    assert_eq!(c[65..], [0; 63]);
                    let bytes = file(&name);
                    // As OVMF does: whole pages, one after the other.
                    let address = next;
                    next += (bytes.len() as u64).next_multiple_of(4096);
                    firmware.zones.insert(name.clone(), c[64]);
                    let before = firmware.files.insert(name, (address, bytes));
                    assert_eq!(before, None, "allocated twice");
                }
                2 => {
                    let (offset, size) = (u32_at(c, 116) as usize, usize::from(c[120]));
                    assert_eq!(c[121..], [0; 7]);
                    firmware.add_pointer(&name, &text(&c[60..116]), offset, size);
                }
                3 => {
                    let (result, start) = (u32_at(c, 60) as usize, u32_at(c, 64) as usize);
                    let length = u32_at(c, 68) as usize;
                    assert_eq!(c[72..], [0; 56]);
                    let bytes = &mut firmware.files.get_mut(&name).unwrap().1;
                    let checksum = sum(&bytes[start..start + length]).wrapping_neg();
                    assert_eq!(bytes[result], 0, "the old value would count");
                    bytes[result] = checksum;
                }
                4 => {
                    let (offset, size) = (u32_at(c, 116) as usize, usize::from(c[124]));
                    let (address, bytes) = &firmware.files[&text(&c[60..116])];
                    assert!((u32_at(c, 120) as usize) < bytes.len());
                    let value = address + u64::from(u32_at(c, 120));
                    assert_eq!((offset, size), (0, GENERATION_ID_ADDRESS_LEN));
                    firmware.written.insert(name, value.to_le_bytes().to_vec());
                }
                other => panic!("command {other}"),
            }
        }
        firmware
    }

    fn add_pointer(&mut self, file: &str, pointee: &str, offset: usize, size: usize) {
        assert!([4, 8].contains(&size));
        let (base, pointee) = self.files[pointee].clone();
        let bytes = &mut self.files.get_mut(file).unwrap().1;
        let field = &mut bytes[offset..offset + size];
        let mut value = [0; 8];
        value[..size].copy_from_slice(field);
        let value = u64::from_le_bytes(value);
        assert!(value < pointee.len() as u64, "a pointer past its file");
        let value = value + base;
        assert!(size == 8 || value <= u64::from(u32::MAX));
        field.copy_from_slice(&value.to_le_bytes()[..size]);
        self.targets.push(value);
    }

    /// The bytes from an address to the end of the file that is there.
    fn at(&self, address: u64) -> &[u8] {
        self.files
            .values()
            .find_map(|(base, bytes)| {
                let offset = usize::try_from(address.checked_sub(*base)?).ok()?;
                bytes.get(offset..)
            })
            .unwrap_or_else(|| panic!("nothing at {address:#x}"))
    }

    fn table(&self, address: u64) -> &[u8] {
        let rest = self.at(address);
        let table = &rest[..u32_at(rest, 4) as usize];
        assert!(&table[..4] == b"FACS" || sum(table) == 0);
        table
    }

    /// The tables that the firmware installs: those that pointers lead to, except the XSDT, each once.
    fn installed(&self) -> Vec<(String, Vec<u8>)> {
        let mut seen = BTreeSet::new();
        let mut tables = Vec::new();
        for target in &self.targets {
            if !seen.insert(*target) {
                continue;
            }
            let rest = self.at(*target);
            let length = u32_at(rest, 4) as usize;
            let whole = (36..=rest.len()).contains(&length) && sum(&rest[..length]) == 0;
            let name = String::from_utf8_lossy(&rest[..4]).into_owned();
            if (whole || &rest[..4] == b"FACS") && name != "XSDT" {
                tables.push((name, rest[..length].to_vec()));
            }
        }
        tables
    }
}

/// Runs the machine's script and checks what every set of tables must be.
fn linked(machine: &AcpiPlatform) -> Firmware {
    let set = TableSet::new(machine).unwrap();
    let firmware = Firmware::run(&set.loader_files().unwrap());
    let (_, rsdp) = &firmware.files[RSDP_FILE];
    assert_eq!((rsdp.len(), rsdp[15]), (36, 2));
    assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
    assert_eq!(u32_at(rsdp, 16), 0, "no RSDT");
    let xsdt = firmware.table(u64_at(rsdp, 24));
    let mut listed = Vec::new();
    for entry in xsdt[36..].as_chunks::<8>().0 {
        let table = firmware.table(u64::from_le_bytes(*entry));
        listed.push(String::from_utf8(table[..4].to_vec()).unwrap());
        if &table[..4] == b"FACP" {
            let facs = u64::from(u32_at(table, 36));
            assert_eq!(facs % 64, 0);
            assert_eq!(&firmware.table(facs)[..4], b"FACS");
            assert_eq!(u64_at(table, 132), 0, "both FIRMWARE_CTRL fields");
            let dsdt = u64_at(table, 140);
            assert_eq!(u64::from(u32_at(table, 40)), dsdt);
            assert_eq!(&firmware.table(dsdt)[..4], b"DSDT");
        }
    }
    let expected = match (&machine.pci, machine.generation_id_event) {
        (None, None) => vec!["FACP", "APIC"],
        (Some(_), None) => vec!["FACP", "APIC", "MCFG"],
        (Some(_), Some(_)) => vec!["FACP", "APIC", "MCFG", "SSDT"],
        (None, Some(_)) => vec!["FACP", "APIC", "SSDT"],
    };
    assert_eq!(listed, expected);
    let mut installed: Vec<_> = firmware.installed().into_iter().map(|t| t.0).collect();
    installed.sort();
    let mut all = [&["FACS", "DSDT"][..], &expected].concat();
    all.sort_unstable();
    assert_eq!(installed, all);
    firmware
}

#[test]
fn every_table_is_reached_and_whole() {
    let mut machine = pc_uefi(processors(3));
    linked(&machine);
    linked(&full(processors(1)));
    machine.generation_id_event = Some(0);
    let firmware = linked(&machine);
    assert_eq!(firmware.zones[TABLES_FILE], 1);
    assert_eq!(firmware.zones[RSDP_FILE], 2);
    machine.pci = None;
    linked(&machine);
}

#[test]
fn the_generation_id_is_where_the_tables_and_the_machine_are_told() {
    let mut machine = pc_uefi(processors(1));
    machine.generation_id_event = Some(5);
    let firmware = linked(&machine);
    let (memory, content) = &firmware.files[GENERATION_ID_FILE];
    let address = memory + u64::from(GENERATION_ID_OFFSET);
    assert_eq!(content[..], [0; 4096]);
    assert_eq!(
        firmware.written[GENERATION_ID_ADDRESS_FILE],
        address.to_le_bytes()
    );
    let listings = compiled_again(firmware.installed());
    let ssdt = listing(&listings, "SSDT");
    let expected = format!("{address:#010X}").replace("0X", "0x");
    for part in [
        "Device (VGEN)",
        "Name (_HID, \"MSFT1002\")",
        "Name (_CID, \"VM_Gen_Counter\")",
        "Method (_E05, 0, NotSerialized)",
        "Notify (\\_SB.VGEN, 0x80)",
        &expected,
    ] {
        assert!(ssdt.contains(part), "no {part} in {ssdt}");
    }
}

#[test]
fn a_pc_is_read_by_iasl_as_it_is_meant() {
    let machine = pc_uefi(processors(4));
    let listings = compiled_again(linked(&machine).installed());
    let dsdt = listing(&listings, "DSDT");
    for part in [
        "PNP0A08",
        "PNP0A03",
        "PNP0C02",
        "Name (_S4, Package (0x04)",
        "Method (_PTS, 1, NotSerialized)",
        "Method (_WAK, 1, NotSerialized)",
        "SLPV = (Local0 | 0x10)",
        "SLPV = (Local0 | 0x20)",
        "Method (_OSC, 4, Serialized)",
        "33db4d5b-1ff7-401c-9657-7441c03dd766",
        "WordBusNumber",
        "QWordMemory",
        // The ports besides the configuration ports.
        "0x0CF7,             // Range Maximum",
        "0x0D00,             // Range Minimum",
        "0xB0000000,         // Address Base",
    ] {
        assert!(dsdt.contains(part), "no {part} in {dsdt}");
    }
    // 32 devices with four pins each.
    assert_eq!(dsdt.matches("FFFF, \n").count(), 128, "{dsdt}");

    // Both of ACPI 6.5, in which the MADT has revision 6.
    let fadt = listing(&listings, "FACP");
    assert_eq!(values(fadt, "Revision"), ["06"]);
    assert_eq!(values(fadt, "FADT Minor Revision"), ["05"]);
    assert_eq!(values(listing(&listings, "APIC"), "Revision"), ["06"]);
    assert_eq!(values(fadt, "PM1A Event Block Address"), ["00000600"]);
    assert_eq!(values(fadt, "PM1A Control Block Address"), ["00000604"]);
    assert_eq!(values(fadt, "PM Timer Block Address"), ["00000608"]);
    assert_eq!(values(fadt, "GPE0 Block Address"), ["00000620"]);
    assert_eq!(values(fadt, "GPE0 Block Length"), ["10"]);
    assert_eq!(values(fadt, "Value to cause reset"), ["06"]);
    assert!(fadt.contains("0000000000000CF9"), "{fadt}");

    let mcfg = listing(&listings, "MCFG");
    assert_eq!(values(mcfg, "Base Address"), ["00000000B0000000"]);
    assert_eq!(values(mcfg, "End Bus Number"), ["FF"]);
}

/// What ACPICA's interpreter says of an object or a method of the machine's tables.
fn evaluated(machine: &AcpiPlatform, what: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (name, bytes) in linked(machine).installed() {
        if ["DSDT", "SSDT"].contains(&&name[..]) {
            fs::write(dir.path().join(&name), bytes).unwrap();
            files.push(name);
        }
    }
    let output = Command::new("acpiexec")
        .args(["-b", &format!("evaluate {what}")])
        .args(files)
        .current_dir(dir.path())
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot run acpiexec, which the tests of ACPI tables need (Debian: apt install acpica-tools): {error}")
        });
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let (_, result) = said.split_once("Evaluating ").unwrap_or_else(|| {
        panic!("acpiexec evaluates nothing: {said}");
    });
    assert!(!result.contains("failed"), "{result}");
    result.to_owned()
}

#[test]
fn the_methods_run() {
    let mut machine = pc_uefi(processors(1));
    machine.generation_id_event = Some(0);
    let done = evaluated(&machine, "\\_PTS 4");
    assert!(done.contains("No object was returned"), "{done}");
    let woke = evaluated(&machine, "\\_WAK 4");
    assert!(woke.contains("[Package] Contains 2 Elements"), "{woke}");
    let address = evaluated(&machine, "\\_SB.VGEN.ADDR");
    assert!(
        address.contains("[Package] Contains 2 Elements"),
        "{address}"
    );
}

#[test]
fn osc_grants_only_what_exists() {
    let machine = pc_uefi(processors(1));
    let pci = "5B4DDB33F71F1C4096577441C03DD766";
    let other = "5B4DDB33F71F1C4096577441C03DD767";
    // Interface, revision, the words that are passed and those that are returned.
    for (uuid, revision, asked, granted) in [
        // Everything is asked for, and the capability structure is there.
        (
            pci,
            1,
            "000000001F0000001F000000",
            "10 00 00 00 1F 00 00 00 10 00 00 00",
        ),
        (
            pci,
            1,
            "010000001F00000010000000",
            "01 00 00 00 1F 00 00 00 10 00 00 00",
        ),
        (
            pci,
            1,
            "000000000000000000000000",
            "00 00 00 00 00 00 00 00 00 00 00 00",
        ),
        (
            pci,
            2,
            "000000001F00000010000000",
            "08 00 00 00 1F 00 00 00 10 00 00 00",
        ),
        (
            other,
            1,
            "000000001F0000001F000000",
            "04 00 00 00 1F 00 00 00 1F 00 00 00",
        ),
    ] {
        let what = format!("\\_SB.PCI0._OSC ({uuid}) {revision} 3 ({asked})");
        let said = evaluated(&machine, &what);
        assert!(said.contains(granted), "{what}: {said}");
    }
}

#[test]
fn hibernation_changes_nothing_but_the_offer_of_it() {
    let mut machine = pc_uefi(processors(1));
    machine.s4 = S4Support::NotOffered;
    let listings = compiled_again(linked(&machine).installed());
    let dsdt = listing(&listings, "DSDT");
    assert!(!dsdt.contains("_S4") && dsdt.contains("_S5") && dsdt.contains("_WAK"));
}

#[test]
fn pins_go_round_robin() {
    let machine = pc_uefi(processors(1));
    let set = TableSet::new(&machine).unwrap();
    let dsdt = &set.table(*b"DSDT").unwrap().bytes;
    // A package of 4: address (in 32 bits), pin, no link device, interrupt.
    let entry = |device: u8, pin: &[u8], gsi: u8| {
        let mut bytes = vec![0x0c, 0xff, 0xff, device, 0];
        bytes.extend_from_slice(pin);
        bytes.extend_from_slice(&[0, 0x0a, gsi]);
        dsdt.windows(bytes.len()).any(|w| w == bytes)
    };
    assert!(entry(1, &[0], 17));
    assert!(entry(31, &[0], 23));
    assert!(entry(31, &[1], 16));
    assert!(entry(8, &[0x0a, 3], 19));
    assert!(!entry(1, &[0], 16));
}

#[test]
fn the_same_machine_is_the_same_files() {
    let files = || {
        let mut machine = pc_uefi(processors(8));
        machine.generation_id_event = Some(0);
        TableSet::new(&machine).unwrap().loader_files().unwrap()
    };
    assert_eq!(files(), files());
    let names: Vec<_> = files().iter().map(|f| f.name).collect();
    assert_eq!(
        names,
        [SCRIPT_FILE, TABLES_FILE, RSDP_FILE, GENERATION_ID_FILE]
    );
}

/// Firmware knows the size of a file, and may know the script, before it decides where PCI functions are.
#[test]
fn addresses_change_neither_sizes_nor_the_script() {
    let files = |ecam: u64, low: Range<u64>, high: Range<u64>| {
        let mut machine = pc_uefi(processors(3));
        machine.generation_id_event = Some(0);
        let pci = machine.pci.as_mut().unwrap();
        pci.last_bus = 0;
        pci.ecam = Some(ecam);
        pci.mmio.low = Some(low);
        pci.mmio.high = Some(high);
        TableSet::new(&machine).unwrap().loader_files().unwrap()
    };
    let all = [
        files(0xb000_0000, 0xc000_0000..0xfc00_0000, 1 << 35..1 << 36),
        files(
            0xe000_0000,
            0x8000_0000..0xe000_0000,
            0xe0 << 32..0xe8 << 32,
        ),
        files(0x4000_0000, 0x1000..0x2000, 1 << 32..(1 << 32) + 0x1000),
    ];
    let tables = |files: &[LoaderFile]| files[1].bytes.clone();
    for files in &all[1..] {
        assert_ne!(tables(files), tables(&all[0]));
        for (file, first) in files.iter().zip(&all[0]) {
            assert_eq!(file.bytes.len(), first.bytes.len(), "{}", file.name);
            assert!(file.name == TABLES_FILE || file == first, "{}", file.name);
        }
    }
}

#[test]
fn tables_with_a_generation_id_cannot_be_placed() {
    let mut machine = pc_uefi(processors(1));
    machine.generation_id_event = Some(0);
    let set = TableSet::new(&machine).unwrap();
    assert_eq!(set.place(0x1_9000), Err(AcpiError::GenerationIdUnplaced));
}

#[test]
fn impossible_root_bridges_are_refused() {
    let refused = |change: fn(&mut AcpiPlatform)| {
        let mut machine = pc_uefi(processors(1));
        change(&mut machine);
        TableSet::new(&machine).unwrap_err()
    };
    assert!(matches!(
        refused(|m| m.pci.as_mut().unwrap().io = vec![0..=0xffff]),
        AcpiError::IoWindow { .. }
    ));
    assert!(matches!(
        refused(|m| m.pci.as_mut().unwrap().ecam = Some(0xf800_0000)),
        AcpiError::Ecam { .. }
    ));
    assert!(matches!(
        refused(|m| m.pci.as_mut().unwrap().ecam = Some(u64::MAX << 20)),
        AcpiError::Ecam { .. }
    ));
    assert!(matches!(
        refused(|m| m.pci.as_mut().unwrap().mmio.low = Some(0xc000_0000..0x1_0000_1000)),
        AcpiError::PciLowWindow { .. }
    ));
    assert!(matches!(
        refused(|m| m.pci.as_mut().unwrap().first_gsi = u32::MAX - 6),
        AcpiError::PciInterrupts { .. }
    ));
    assert!(matches!(
        refused(|m| m.sleep_announcements.as_mut().unwrap().wake = 0x10),
        AcpiError::SleepAnnouncements { .. }
    ));
    assert!(matches!(
        refused(|m| m.generation_id_event = Some(16)),
        AcpiError::Event { event: 16 }
    ));
    assert!(matches!(
        refused(|m| m.pm_base = 0xffe0),
        AcpiError::Ports { .. }
    ));
}
