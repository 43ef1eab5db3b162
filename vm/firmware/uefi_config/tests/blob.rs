//! Blobs as the firmware reads them: decoded by a reader that knows the format from its description alone.

mod decoder;

use decoder::Decoded;
use proptest::prelude::*;
use uefi_config::ConfigError;
use uefi_config::ConsoleMode;
use uefi_config::GicBases;
use uefi_config::MemoryEntry;
use uefi_config::MemoryProtection;
use uefi_config::MemoryUse;
use uefi_config::PcieApertures;
use uefi_config::ProcessorCounts;
use uefi_config::ProcessorStrings;
use uefi_config::SmbiosProcessor;
use uefi_config::SmbiosStrings;
use uefi_config::UefiConfig;
use uefi_config::UefiFlags;
use uefi_config::replace_entropy;
use uefi_config::structures;
use uuid::uuid;

const GIB: u64 = 1 << 30;
const FOUR_GIB: u64 = 4 * GIB;

fn ram(base: u64, len: u64) -> MemoryEntry {
    MemoryEntry {
        base,
        len,
        usage: MemoryUse::Ram,
    }
}

/// The least that the firmware needs.
fn small() -> UefiConfig {
    UefiConfig {
        image_pages: 0x600,
        memory_map: vec![ram(0, GIB)],
        entropy: std::array::from_fn(|n| n as u8),
        bios_guid: uuid!("00112233-4455-6677-8899-aabbccddeeff"),
        flags: UefiFlags::new().with_mtrrs_initialized(true),
        processors: ProcessorCounts {
            max: 2,
            count: 2,
            per_socket: 2,
            threads_per_core: 1,
        },
        low_mmio: 0xf800_0000..FOUR_GIB,
        high_mmio: FOUR_GIB..FOUR_GIB,
        smbios: SmbiosStrings::default(),
        smbios_processor: None,
        acpi_tables: Vec::new(),
        nvdimms: None,
        vpci_instance: None,
        gic: None,
        pcie: Vec::new(),
    }
}

fn table(signature: &[u8; 4], len: usize) -> Vec<u8> {
    let mut table = vec![0x5a; len];
    table[..4].copy_from_slice(signature);
    table[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    table[9] = 0;
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

/// With everything that there can be.
fn full() -> UefiConfig {
    let text = |text: &str| text.to_owned();
    UefiConfig {
        memory_map: vec![
            ram(0, 0xa0000),
            MemoryEntry {
                base: 0x10_0000,
                len: GIB,
                usage: MemoryUse::Reserved,
            },
            MemoryEntry {
                base: FOUR_GIB,
                len: GIB,
                usage: MemoryUse::Persistent,
            },
            MemoryEntry {
                base: 5 * GIB,
                len: 0x1000,
                usage: MemoryUse::SpecificPurpose,
            },
        ],
        high_mmio: 64 * GIB..64 * GIB + (512 << 20),
        smbios: SmbiosStrings {
            manufacturer: text("a"),
            product: text("bb"),
            version: text("ccc"),
            serial: text("dddd"),
            sku: text("eeeee"),
            family: text("ffffff"),
            baseboard_serial: text("ggggggg"),
            chassis_serial: text("hhhhhhhh"),
            chassis_asset_tag: text("i"),
            bios_lock: text("j"),
            memory_serial: text("k"),
            processor: ProcessorStrings {
                socket: text("l"),
                manufacturer: text("m"),
                version: text("n"),
                serial: text("o"),
                asset_tag: text("p"),
                part_number: text("q"),
            },
        },
        smbios_processor: Some(SmbiosProcessor {
            id: 0x0102_0304_0506_0708,
            external_clock: 0x1112,
            max_speed: 0x1314,
            current_speed: 0x1516,
            characteristics: 0x1718,
            family2: 0x191a,
            kind: 0x1b,
            voltage: 0x1c,
            status: 0x1d,
            upgrade: 0x1e,
        }),
        acpi_tables: vec![table(b"APIC", 45), table(b"MCFG", 60)],
        nvdimms: Some(3),
        vpci_instance: Some(uuid!("01020304-0506-0708-090a-0b0c0d0e0f10")),
        gic: Some(GicBases {
            distributor: 0xffff_0000,
            redistributors: 0xeffe_e000,
        }),
        pcie: vec![PcieApertures {
            segment: 1,
            first_bus: 2,
            last_bus: 3,
            uid: 4,
            low: 0xc000_0000..0xf800_0000,
            high: 128 * GIB..160 * GIB,
        }],
        ..small()
    }
}

#[test]
fn a_small_blob_is_as_it_was_laid_down() {
    let blob = small().encode().unwrap();
    let words: Vec<u32> = blob
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect();
    #[rustfmt::skip]
    let expected = [
        // 8 structures of 240 bytes together.
        0x00, 16, 8, 240,
        0x01, 16, 0x600, 0,
        0x03, 32, 0, 0, 0x4000_0000, 0, 0, 0,
        0x05, 24, 0x0011_2233, 0x6677_4455, 0xbbaa_9988, 0xffee_ddcc,
        0x04, 72, 0x0302_0100, 0x0706_0504, 0x0b0a_0908, 0x0f0e_0d0c,
            0x1312_1110, 0x1716_1514, 0x1b1a_1918, 0x1f1e_1d1c,
            0x2322_2120, 0x2726_2524, 0x2b2a_2928, 0x2f2e_2d2c,
            0x3332_3130, 0x3736_3534, 0x3b3a_3938, 0x3f3e_3d3c,
        0x14, 40, 0xf_8000, 0, 0x8000, 0, 0x10_0000, 0, 0, 0,
        0x13, 24, 2, 2, 2, 1,
        0x12, 16, 0x1000_0000, 0,
    ];
    assert_eq!(words[..4], expected[..4]);
    assert_eq!(words, expected);
}

#[test]
fn each_field_is_where_the_firmware_reads_it() {
    let decoded = Decoded::read(&full().encode().unwrap());
    assert_eq!(
        decoded.memory,
        [
            (0, 0xa0000, 0),
            (0x10_0000, GIB, 1),
            (FOUR_GIB, GIB, 2),
            (5 * GIB, 0x1000, 4),
        ]
    );
    assert_eq!(decoded.gaps[0], (0xf8000, 0x8000));
    assert_eq!(decoded.gaps[1], ((64 * GIB) >> 12, 0x20000));
    assert_eq!(decoded.entropy, small().entropy);
    assert_eq!(decoded.processors, [2, 2, 2, 1]);
    assert_eq!(decoded.image_pages, 0x600);
    let letters = [
        (0x1a, "a"),
        (0x1b, "bb"),
        (0x1c, "ccc"),
        (0x06, "dddd"),
        (0x1d, "eeeee"),
        (0x1e, "ffffff"),
        (0x07, "ggggggg"),
        (0x08, "hhhhhhhh"),
        (0x09, "i"),
        (0x0a, "j"),
        (0x1f, "k"),
        (0x0c, "l"),
        (0x0d, "m"),
        (0x0e, "n"),
        (0x0f, "o"),
        (0x10, "p"),
        (0x11, "q"),
    ];
    for (kind, text) in letters {
        assert_eq!(decoded.strings[&kind], text, "{kind:#x}");
    }
    assert_eq!(decoded.strings.len(), letters.len());
    let processor = decoded.processor.unwrap();
    assert_eq!(processor[..8], 0x0102_0304_0506_0708_u64.to_le_bytes());
    let rest = [
        0x12, 0x11, 0x14, 0x13, 0x16, 0x15, 0x18, 0x17, 0x1a, 0x19, 0x1b, 0x1c, 0x1d, 0x1e, 0, 0,
    ];
    assert_eq!(processor[8..], rest);
    assert_eq!(decoded.tables, full().acpi_tables);
    assert_eq!(decoded.nvdimms, Some(3));
    assert_eq!(
        decoded.vpci_instance.unwrap(),
        [4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16]
    );
    assert_eq!(decoded.gic, Some((0xffff_0000, 0xeffe_e000)));
    assert_eq!(
        decoded.apertures,
        [(
            1,
            [2, 3],
            4,
            [0xc000_0000, 0x3800_0000, 128 * GIB, 32 * GIB]
        )]
    );
}

#[test]
fn each_flag_is_its_bit() {
    let bits = |flags: UefiFlags| {
        let config = UefiConfig { flags, ..small() };
        Decoded::read(&config.encode().unwrap()).flags
    };
    let new = UefiFlags::new;
    for (bit, flags) in [
        (0, new().with_serial_ports(true)),
        (1, new().with_pause_after_boot_failure(true)),
        (2, new().with_pxe_prefers_ipv6(true)),
        (3, new().with_debugger(true)),
        (4, new().with_oemp_table(true)),
        (5, new().with_tpm(true)),
        (6, new().with_hibernation(true)),
        (7, new().with_console(ConsoleMode::Com1)),
        (8, new().with_console(ConsoleMode::Com2)),
        (9, new().with_memory_attributes_table(true)),
        (10, new().with_virtual_battery(true)),
        (11, new().with_sgx_memory(true)),
        (12, new().with_vmbfs_boot(true)),
        (13, new().with_measure_additional_pcrs(true)),
        (14, new().with_disable_front_page(true)),
        (15, new().with_default_boot_always_attempt(true)),
        (16, new().with_low_power_s0_idle(true)),
        (17, new().with_vpci_boot(true)),
        (18, new().with_processor_idle(true)),
        (19, new().with_drop_sha384_bank(true)),
        (20, new().with_media_present_by_default(true)),
        (21, new().with_memory_protection(MemoryProtection::Default)),
        (22, new().with_memory_protection(MemoryProtection::Strict)),
        (23, new().with_imc_when_isolated(true)),
        (24, new().with_guest_watchdog(true)),
        (25, new().with_tpm_locality_registers(true)),
        (26, new().with_dhcp6_duid_llt(true)),
        (27, new().with_cxl_memory(true)),
        (28, new().with_mtrrs_initialized(true)),
        (30, new().with_vmbus_disabled(true)),
        (31, new().with_pci_preassigned(true)),
        (32, new().with_force_dma_bounce(true)),
        (33, new().with_ipmi_bmc(true)),
    ] {
        assert_eq!(bits(flags), 1 << bit, "bit {bit}");
    }
    assert_eq!(bits(new().with_console(ConsoleMode::None)), 3 << 7);
    let relaxed = new().with_memory_protection(MemoryProtection::Relaxed);
    assert_eq!(bits(relaxed), 3 << 21);
    assert_eq!(bits(new()), 0);
}

#[test]
fn what_the_firmware_would_stop_at_is_refused() {
    let refused = |change: &dyn Fn(&mut UefiConfig)| {
        let mut config = full();
        change(&mut config);
        config.encode().unwrap_err()
    };
    assert_eq!(refused(&|c| c.memory_map.clear()), ConfigError::NoMemory);
    for (base, len) in [(0x800, 0x1000), (0, 0x800), (0x1000, 0), (!0xfff, 0x2000)] {
        let error = refused(&|c| c.memory_map = vec![ram(base, len)]);
        assert_eq!(error, ConfigError::MemoryRange { base, len });
    }
    let error = refused(&|c| c.memory_map = vec![ram(0, 0x3000), ram(0x2000, 0x1000)]);
    assert_eq!(error, ConfigError::MemoryOrder { base: 0x2000 });
    for base in [0xf7ff_f000, 64 * GIB, 0xc000_0000, 128 * GIB - 0x1000] {
        let error = refused(&|c| c.memory_map = vec![ram(base, 0x2000)]);
        assert!(
            matches!(error, ConfigError::MemoryInMmio { base: at, .. } if at == base),
            "{error}"
        );
    }
    for change in [
        (|c| c.low_mmio = 0xf800_0000..FOUR_GIB + 0x1000) as fn(&mut UefiConfig),
        |c| c.low_mmio = 0xf800_0800..FOUR_GIB,
        |c| c.high_mmio = FOUR_GIB + 0x1000..FOUR_GIB + 0x2000,
        |c| c.high_mmio = 0..0x10_0000,
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is wrong")]
        |c| c.high_mmio = 2 * FOUR_GIB..FOUR_GIB,
        |c| c.pcie[0].low = 0xf000_0000..FOUR_GIB + 0x1000,
        |c| c.pcie[0].high = 0x1000..0x2000,
    ] {
        let error = refused(&change);
        assert!(matches!(error, ConfigError::Gap { .. }), "{error}");
    }
    let error = refused(&|c| c.pcie[0].first_bus = 4);
    assert_eq!(error, ConfigError::Buses { first: 4, last: 3 });
    for change in [
        (|c| c.processors.count = 0) as fn(&mut UefiConfig),
        |c| c.processors.count = 3,
        |c| c.processors.per_socket = 0,
        |c| c.processors.threads_per_core = 0,
    ] {
        let error = refused(&change);
        assert!(matches!(error, ConfigError::Processors { .. }), "{error}");
    }
    let error = refused(&|c| c.smbios.serial = "a\0b".into());
    assert!(matches!(error, ConfigError::Characters { .. }), "{error}");
    let error = refused(&|c| c.smbios.processor.version = "v".repeat(65));
    assert!(
        matches!(error, ConfigError::StringTooLong { .. }),
        "{error}"
    );
}

#[test]
fn tables_that_are_none_are_refused() {
    let refused = |table: Vec<u8>| {
        let config = UefiConfig {
            acpi_tables: vec![table],
            ..small()
        };
        config.encode().unwrap_err()
    };
    assert_eq!(refused(vec![0; 35]), ConfigError::ShortTable { len: 35 });
    assert_eq!(refused(Vec::new()), ConfigError::ShortTable { len: 0 });
    let mut longer = table(b"APIC", 44);
    longer.push(0);
    let error = refused(longer);
    assert!(
        matches!(
            error,
            ConfigError::TableLength {
                stated: 44,
                len: 45,
                ..
            }
        ),
        "{error}"
    );
    let mut wrong = table(b"APIC", 44);
    wrong[40] ^= 1;
    let error = refused(wrong);
    assert!(
        matches!(error, ConfigError::TableChecksum { .. }),
        "{error}"
    );
    for own in [b"XSDT", b"RSDT", b"RSD "] {
        let mut table = table(own, 44);
        if own == b"RSD " {
            table[..8].copy_from_slice(b"RSD PTR ");
        }
        let error = refused(table);
        assert!(matches!(error, ConfigError::OwnTable { .. }), "{error}");
    }
    let huge = UefiConfig {
        acpi_tables: vec![table(b"SSDT", 5 << 20)],
        ..small()
    };
    let error = huge.encode().unwrap_err();
    assert!(matches!(error, ConfigError::TooLong { .. }), "{error}");
}

#[test]
fn only_the_random_bytes_are_replaced() {
    let mut blob = full().encode().unwrap();
    replace_entropy(&mut blob, &[7; 64]).unwrap();
    let expected = UefiConfig {
        entropy: [7; 64],
        ..full()
    };
    assert!(blob == expected.encode().unwrap());
    // The structure is not there.
    let mut blob = small().encode().unwrap();
    let at = structures(&blob)
        .unwrap()
        .into_iter()
        .find(|structure| structure.kind == 4)
        .unwrap();
    blob[at.payload.start - 8] = 0x99;
    assert!(replace_entropy(&mut blob, &[7; 64]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_can_be_read_as_a_stored_blob(
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..8),
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = structures(&bytes);
        let mut blob = full().encode().unwrap();
        for (at, byte) in changes {
            let at = usize::from(at) % blob.len();
            blob[at] = byte;
        }
        let original = blob.clone();
        if replace_entropy(&mut blob, &[7; 64]).is_ok() {
            let changed = blob.iter().zip(&original).filter(|(a, b)| a != b).count();
            assert!(changed <= 64);
        } else {
            assert!(blob == original);
        }
    }

    #[test]
    fn every_length_of_a_string_is_read_back(len in 0_usize..200) {
        let text = "x".repeat(len);
        let mut config = small();
        config.smbios.serial.clone_from(&text);
        let decoded = Decoded::read(&config.encode().unwrap());
        let found = decoded.strings.get(&0x06).map(String::as_str);
        assert_eq!(found, (len > 0).then_some(&*text));
    }
}
