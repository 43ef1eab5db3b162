//! The ACPI tables that firmware is given, and what a hibernated guest finds.

use super::*;
use crate::machine::test_bench::*;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::BootOptions;
use std::os::unix::fs::FileExt as _;
use virt::IrqchipMode;
use virt_fake::Step;

const DESCRIPTOR: u64 = 0x2000;
const BUFFER: u64 = 0x10_0000;

fn config_write(device: u32, register: u32, value: u32) -> [Step; 2] {
    let address = 1 << 31 | device << 11 | register;
    [
        out(0xcf8, &address.to_le_bytes()),
        out(0xcfc, &value.to_le_bytes()),
    ]
}

/// Firmware like Debian 13's OVMF: configuration space at 0xE0000000, and the disk's BARs at these addresses. Decoding is
/// off, as it is when firmware reads the tables.
fn firmware(low: u32, high: u64) -> Vec<Step> {
    [
        config_write(0, 0x60, 0),
        config_write(0, 0x60, 0xe000_0001),
        config_write(1, 0x10, high as u32),
        config_write(1, 0x14, (high >> 32) as u32),
        config_write(1, 0x18, low),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The selector and the size of a file of the firmware configuration device.
fn file(bench: &mut Bench, name: &str) -> (u32, u32) {
    let inspected = bench.machine.inspect();
    let items = inspected["units"]["fw-cfg"]["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["name"] == name).unwrap();
    let selector = item["selector"].as_str().unwrap();
    let selector = u32::from_str_radix(selector.trim_start_matches("0x"), 16).unwrap();
    (selector, item["size"].as_u64().unwrap() as u32)
}

/// The guest selects the file and transfers it from or to the buffer.
fn transfer(bench: &mut Bench, (selector, len): (u32, u32), command: u32) {
    const SELECT: u32 = 8;
    let words = [selector << 16 | SELECT | command, len, 0, BUFFER as u32];
    let descriptor = words.map(u32::to_be_bytes).concat();
    bench.run(vec![
        Step::WriteMemory {
            gpa: DESCRIPTOR,
            data: descriptor,
        },
        out(0x518, &(DESCRIPTOR as u32).to_be_bytes()),
    ]);
}

/// The guest reads a file of the firmware configuration device.
fn read_file(bench: &mut Bench, files: &Files, name: &str) -> Vec<u8> {
    let file = file(bench, name);
    transfer(bench, file, 2);
    ram(files, BUFFER, file.1)
}

fn ram(files: &Files, gpa: u64, len: u32) -> Vec<u8> {
    let ram = std::fs::File::open(files.path("ram")).unwrap();
    let mut bytes = vec![0; len as usize];
    ram.read_exact_at(&mut bytes, gpa).unwrap();
    bytes
}

fn tables(bench: &mut Bench, files: &Files) -> Vec<u8> {
    read_file(bench, files, acpi_spec::TABLES_FILE)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The base address in the MCFG.
fn mcfg_base(tables: &[u8]) -> u64 {
    let at = tables.windows(4).position(|w| w == b"MCFG").unwrap();
    u64::from_le_bytes(std::array::from_fn(|i| tables[at + 44 + i]))
}

/// Checks the windows of the root bridge and the motherboard resource: starts and last addresses.
fn assert_windows(tables: &[u8], ecam: u32, low: [u32; 2], high: [u64; 2]) {
    assert_eq!(mcfg_base(tables), u64::from(ecam));
    let motherboard = [ecam, 1 << 20].map(u32::to_le_bytes).concat();
    assert!(contains(tables, &motherboard), "the ECAM is not reserved");
    for (what, window) in [
        ("low", low.map(u32::to_le_bytes).concat()),
        ("high", high.map(u64::to_le_bytes).concat()),
    ] {
        assert!(contains(tables, &window), "{what}");
    }
}

fn uefi() -> (Files, VmConfig) {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    (files, config)
}

#[test]
fn tables_follow_what_firmware_programmed() {
    let (files, config) = uefi();
    let mut bench = Bench::boot(&config);
    bench.run(firmware(0x8000_0000, 0xe0_0000_0000));
    let made = tables(&mut bench, &files);
    assert_windows(
        &made,
        0xe000_0000,
        [0x8000_0000, 0xdfff_ffff],
        [0xe0_0000_0000, 0xe7_ffff_ffff],
    );
    // Once: what an operating system does with its BARs later changes nothing.
    bench.run(firmware(0x9000_0000, 0xf0_0000_0000));
    assert!(tables(&mut bench, &files) == made);
    let saved = bench.save();
    bench.end(&config);
    let mut bench = Bench::new(&config, &Start::from(saved)).unwrap();
    assert!(tables(&mut bench, &files) == made);

    // After a reset, what is programmed then. Nothing is as at power-on.
    bench.machine.lifecycle.reset().unwrap();
    let at_reset = tables(&mut bench, &files);
    assert_windows(
        &at_reset,
        0xb000_0000,
        [0xc000_0000, 0xfbff_ffff],
        [0x8_0000_0000, 0xf_ffff_ffff],
    );
    bench.machine.lifecycle.reset().unwrap();
    bench.run(firmware(0xf000_0000, 0xe0_0000_0000));
    let made = tables(&mut bench, &files);
    assert_windows(
        &made,
        0xe000_0000,
        [0xf000_0000, 0xfbff_ffff],
        [0xe0_0000_0000, 0xe7_ffff_ffff],
    );
    bench.end(&config);
}

#[test]
fn a_hibernated_guest_finds_its_tables() {
    let (files, config) = uefi();
    let mut bench = Bench::boot(&config);
    bench.run(firmware(0x8000_0000, 0xe0_0000_0000));
    let made = tables(&mut bench, &files);
    let smbios = read_file(&mut bench, &files, smbios::TABLES_FILE);
    hibernate(&mut bench);
    bench.end(&config);

    // Whatever is programmed now: these are what the guest remembers.
    let mut bench = Bench::boot(&config);
    assert!(bench.take_events().contains(&"restored".to_owned()));
    bench.run(firmware(0x9000_0000, 0xf0_0000_0000));
    assert!(tables(&mut bench, &files) == made);
    assert!(read_file(&mut bench, &files, smbios::TABLES_FILE) == smbios);
    let saved = bench.save();
    bench.end(&config);
    let mut bench = Bench::new(&config, &Start::from(saved)).unwrap();
    bench.machine.lifecycle.reset().unwrap();
    bench.run(firmware(0x9000_0000, 0xf0_0000_0000));
    assert!(tables(&mut bench, &files) == made);
    bench.end(&config);

    // Not for a new session.
    let mut bench = Bench::new(
        &config,
        &Start::Boot(BootOptions {
            hibernation_override: Some(firmware_hibernation::Override::Discard),
            ..BootOptions::default()
        }),
    )
    .unwrap();
    bench.run(firmware(0x9000_0000, 0xe0_0000_0000));
    assert!(tables(&mut bench, &files) != made);
    bench.end(&config);
}

/// A cold start writes the several MiB of the firmware once.
#[test]
fn tables_are_stored_when_the_guest_is_about_to_hibernate() {
    let (files, config) = uefi();
    let mut bench = Bench::boot(&config);
    let captured = bench.machine_sequence();
    bench.run(firmware(0x8000_0000, 0xe0_0000_0000));
    let made = tables(&mut bench, &files);
    assert_eq!(bench.machine_sequence(), captured);
    // `_PTS` of S4. If the host loses power now, the guest may have hibernated.
    bench.run(vec![out(0x506, &[0x14])]);
    let store = files.path("vm.vmgs");
    let power_cut = std::fs::read(&store).unwrap();
    let announced = bench.machine_sequence();
    bench.run(vec![out(0x506, &[0x14])]);
    assert_eq!(bench.machine_sequence(), announced, "they are stored once");
    bench.end(&config);

    std::fs::write(&store, power_cut).unwrap();
    let mut bench = Bench::boot(&config);
    assert!(bench.take_events().contains(&"restored".to_owned()));
    assert!(tables(&mut bench, &files) == made);
    bench.end(&config);

    // A guest that announces nothing.
    let (files, config) = uefi();
    let mut bench = Bench::boot(&config);
    bench.run(firmware(0x8000_0000, 0xe0_0000_0000));
    assert!(tables(&mut bench, &files) == made);
    hibernate(&mut bench);
    bench.end(&config);
    let mut bench = Bench::boot(&config);
    assert!(tables(&mut bench, &files) == made);
    bench.end(&config);
}

#[test]
fn the_generation_id_is_where_the_firmware_says() {
    const PLACE: u64 = 0x20_0000;
    let (files, config) = uefi();
    let mut bench = Bench::boot(&config);
    let address = file(&mut bench, acpi_spec::GENERATION_ID_ADDRESS_FILE);
    bench.run(vec![Step::WriteMemory {
        gpa: BUFFER,
        data: PLACE.to_le_bytes().to_vec(),
    }]);
    transfer(&mut bench, address, 16);
    assert_eq!(ram(&files, PLACE, 16), inventory::generation_id([7; 16]));
    bench.end(&config);
}

#[test]
fn smbios_says_what_the_processor_is() {
    let (files, config) = uefi();
    let mut bench = Bench::boot(&config);
    let smbios = read_file(&mut bench, &files, smbios::TABLES_FILE);
    // Type 4: its length, handle, socket, type, family, manufacturer.
    let at = smbios
        .windows(4)
        .position(|w| w == [4, 0x30, 0, 4])
        .unwrap();
    let processor = &smbios[at..];
    let virt::ProcessorIdentity { signature, tsc_khz } = virt_fake::PROCESSOR;
    assert_eq!(processor[8..16], signature.to_le_bytes());
    let mhz = (tsc_khz / 1000) as u16;
    assert_eq!(mhz, 2450);
    assert_eq!(
        processor[0x14..0x18],
        [mhz, mhz].map(u16::to_le_bytes).concat()
    );
    bench.end(&config);
}

#[test]
fn memory_that_firmware_cannot_use_is_refused() {
    let (files, mut config) = uefi();
    let linux = files.linux();
    for (size, reason) in [(32 << 20, "64 MiB"), ((64 << 20) + 4096, "number of MiB")] {
        config.memory.size = size;
        let error = Bench::new(&config, &Start::default()).err().unwrap();
        assert!(
            error.is_config() && error.to_string().contains(reason),
            "{error}"
        );
        assert!(!files.path("vm.vmgs").exists());
        crate::check_memory(&config.memory, &linux).unwrap();
        crate::check_memory(&config.memory, &config.load_mode).unwrap_err();
    }
}
