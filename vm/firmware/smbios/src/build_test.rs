//! The structures, read by a reader that knows the specification and not the builder.

use crate::BaseboardInformation;
use crate::BiosInformation;
use crate::Chassis;
use crate::Description;
use crate::MAX_TEXT_LEN;
use crate::ProcessorInformation;
use crate::Smbios;
use crate::SmbiosError;
use crate::SystemInformation;
use proptest::prelude::*;
use sha2::Digest;
use sha2::Sha256;
use std::collections::BTreeSet;
use std::ops::Range;
use uuid::Uuid;

const GIB: u64 = 1 << 30;

/// A structure that was read.
#[derive(Debug)]
struct Read<'a> {
    kind: u8,
    handle: u16,
    /// The formatted area with its header.
    area: &'a [u8],
    texts: Vec<&'a str>,
}

impl Read<'_> {
    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.area[offset..offset + 2].try_into().unwrap())
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.area[offset..offset + 4].try_into().unwrap())
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.area[offset..offset + 8].try_into().unwrap())
    }

    fn text(&self, offset: usize) -> &str {
        match self.area[offset] {
            0 => "",
            n => self.texts[usize::from(n) - 1],
        }
    }
}

/// Reads all structures, and checks that the sequence is one.
fn read(smbios: &Smbios) -> Vec<Read<'_>> {
    let anchor = &smbios.anchor;
    assert_eq!(anchor.len(), 0x18);
    assert_eq!(&anchor[..5], b"_SM3_");
    assert_eq!(anchor.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
    assert_eq!(anchor[6..12], [0x18, 3, 0, 0, 1, 0]);
    assert_eq!(
        anchor[12..16],
        (smbios.tables.len() as u32).to_le_bytes(),
        "the size must be exact"
    );
    let mut rest = &smbios.tables[..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (area, after) = rest.split_at(rest[1].into());
        let mut texts = Vec::new();
        let mut strings = after;
        while strings[0] != 0 {
            let end = strings.iter().position(|b| *b == 0).unwrap();
            texts.push(str::from_utf8(&strings[..end]).unwrap());
            strings = &strings[end + 1..];
        }
        // Without texts two zeros end the structure, otherwise one after the last text's own.
        rest = if texts.is_empty() {
            assert_eq!(strings[..2], [0, 0]);
            &strings[2..]
        } else {
            &strings[1..]
        };
        all.push(Read {
            kind: area[0],
            handle: u16::from_le_bytes([area[2], area[3]]),
            area,
            texts,
        });
    }
    let handles: BTreeSet<u16> = all.iter().map(|s| s.handle).collect();
    assert_eq!(handles.len(), all.len(), "a handle is used twice");
    assert_eq!(all.last().unwrap().kind, 127);
    assert_eq!(all.iter().filter(|s| s.kind == 127).count(), 1);
    // The lengths that version 3.0 of the specification gives.
    for s in &all {
        let length = match s.kind {
            0 => 0x18,
            1 => 0x1b,
            2 => 0x0f,
            3 => 0x16,
            4 => 0x30,
            16 => 0x17,
            17 => 0x28,
            19 => 0x1f,
            32 => 0x0b,
            127 => 0x04,
            other => panic!("type {other}"),
        };
        assert_eq!(s.area.len(), length, "type {}", s.kind);
    }
    all
}

fn of_kind<'a>(all: &'a [Read<'a>], kind: u8) -> Vec<&'a Read<'a>> {
    all.iter().filter(|s| s.kind == kind).collect()
}

fn processor() -> ProcessorInformation {
    ProcessorInformation {
        manufacturer: "AuthenticAMD".into(),
        version: "AMD EPYC 7763".into(),
        id: 0x178b_fbff_00a0_0f11,
        max_speed: 3500,
        current_speed: 2450,
        cores: 1,
        threads: 1,
    }
}

fn description() -> Description {
    Description {
        bios: BiosInformation {
            vendor: "EFI Development Kit II / OVMF".into(),
            version: "2022.11".into(),
            release_date: "12/02/2022".into(),
            release: (0, 0),
        },
        system: SystemInformation {
            manufacturer: "OpenVMM".into(),
            product: "pc-uefi".into(),
            version: "1".into(),
            serial: "s-1".into(),
            uuid: Uuid::from_bytes(std::array::from_fn(|i| i as u8)),
            sku: String::new(),
            family: "Virtual Machine".into(),
        },
        baseboard: BaseboardInformation::default(),
        chassis: Chassis {
            manufacturer: "OpenVMM".into(),
            asset_tag: "rack 5".into(),
            ..Chassis::default()
        },
        processors: vec![processor(), processor()],
        memory: vec![0..2 * GIB, 4 * GIB..6 * GIB],
    }
}

fn with_memory(memory: Vec<Range<u64>>) -> Result<Smbios, SmbiosError> {
    Description {
        memory,
        ..description()
    }
    .build()
}

fn from_zero(size: u64) -> Vec<Range<u64>> {
    std::iter::once(0..size).collect()
}

#[test]
fn a_machine_is_read_as_it_was_described() {
    let smbios = description().build().unwrap();
    let all = read(&smbios);
    let kinds: Vec<u8> = all.iter().map(|s| s.kind).collect();
    assert_eq!(kinds, [0, 1, 2, 3, 4, 4, 16, 17, 19, 19, 32, 127]);

    let firmware = &all[0];
    assert_eq!(firmware.text(4), "EFI Development Kit II / OVMF");
    assert_eq!(
        (firmware.text(5), firmware.text(8)),
        ("2022.11", "12/02/2022")
    );
    assert_eq!(firmware.area[0x13], 0x18, "UEFI, virtual machine");

    let system = &all[1];
    let texts: Vec<_> = [4, 5, 6, 7, 0x19, 0x1a].map(|at| system.text(at)).into();
    let expected = ["OpenVMM", "pc-uefi", "1", "s-1", "", "Virtual Machine"];
    assert_eq!(texts, expected);
    // 00010203-0405-0607-0809-0a0b0c0d0e0f
    assert_eq!(
        system.area[8..0x18],
        [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
    );

    let chassis = &all[3];
    assert_eq!(all[2].u16(0xb), chassis.handle);
    assert_eq!((chassis.text(4), chassis.text(8)), ("OpenVMM", "rack 5"));

    let second = &all[5];
    assert_eq!((second.text(4), second.text(7)), ("CPU 1", "AuthenticAMD"));
    assert_eq!(second.u64(8), 0x178b_fbff_00a0_0f11);
    assert_eq!((second.u16(0x14), second.u16(0x16)), (3500, 2450));
    assert_eq!(second.area[0x23..0x26], [1, 1, 1]);
    assert_eq!(second.u16(0x26), 4);

    let (array, device) = (&all[6], &all[7]);
    assert_eq!((array.u32(7), array.u16(0xd)), (4 << 20, 1));
    assert_eq!(device.u16(4), array.handle);
    assert_eq!((device.u16(0xc), device.text(0x10)), (4096, "DIMM 0"));
    assert_eq!((all[8].u32(4), all[8].u32(8)), (0, (2 << 20) - 1));
    assert_eq!((all[9].u32(4), all[9].u32(8)), (4 << 20, (6 << 20) - 1));
    assert_eq!(all[9].u16(0xc), array.handle);
}

#[test]
fn many_cores_are_said_in_words() {
    let mut machine = description();
    machine.processors = vec![ProcessorInformation {
        cores: 256,
        threads: 512,
        ..processor()
    }];
    let smbios = machine.build().unwrap();
    let all = read(&smbios);
    let p = of_kind(&all, 4)[0];
    assert_eq!(p.area[0x23..0x26], [0xff, 0xff, 0xff]);
    assert_eq!((p.u16(0x2a), p.u16(0x2c), p.u16(0x2e)), (256, 256, 512));
    assert_eq!(p.u16(0x26), 0b1_1100);
    for (cores, threads) in [(0, 0), (0, 1), (2, 1)] {
        machine.processors[0].cores = cores;
        machine.processors[0].threads = threads;
        assert_eq!(machine.build(), Err(SmbiosError::Cores { cores, threads }));
    }
}

#[test]
fn memory_comes_in_pieces() {
    let sizes = |size: u64| {
        let smbios = with_memory(from_zero(size)).unwrap();
        let all = read(&smbios);
        let array = of_kind(&all, 16)[0];
        let devices = of_kind(&all, 17);
        assert_eq!(usize::from(array.u16(0xd)), devices.len());
        let capacity = match array.u32(7) {
            0x8000_0000 => array.u64(0xf),
            kib => u64::from(kib) << 10,
        };
        assert_eq!(capacity, size);
        let mib = |d: &&Read<'_>| match d.u16(0xc) {
            0x7fff => u64::from(d.u32(0x1c)),
            mib => u64::from(mib),
        };
        let sizes: Vec<u64> = devices.iter().map(mib).collect();
        assert_eq!(sizes.iter().sum::<u64>() << 20, size);
        sizes
    };
    assert_eq!(sizes(1 << 20), [1]);
    assert_eq!(sizes(16 * GIB), [16384]);
    assert_eq!(sizes(20 * GIB), [16384, 4096]);
    // 8 TiB are 512 pieces; more needs larger ones.
    assert_eq!(sizes(8192 * GIB).len(), 512);
    assert_eq!(sizes(8193 * GIB)[0], 32768);
}

#[test]
fn addresses_past_32_bits_of_kib_are_said_in_bytes() {
    let far = 1 << 42;
    let smbios = with_memory(vec![0..far, far..far + GIB]).unwrap();
    let all = read(&smbios);
    let ranges = of_kind(&all, 19);
    // Its last KiB has the number that says to look elsewhere.
    for (range, start, last) in [(ranges[0], 0, far - 1), (ranges[1], far, far + GIB - 1)] {
        assert_eq!((range.u32(4), range.u32(8)), (u32::MAX, u32::MAX));
        assert_eq!((range.u64(0xf), range.u64(0x17)), (start, last));
    }
}

#[test]
fn impossible_memory_is_refused() {
    assert_eq!(
        with_memory(Vec::new()),
        Err(SmbiosError::MemorySize { size: 0 })
    );
    assert!(matches!(
        with_memory(from_zero(GIB + 1024)),
        Err(SmbiosError::MemorySize { .. })
    ));
    assert!(matches!(
        with_memory(vec![0..u64::MAX - 1023, 0..u64::MAX - 1023]),
        Err(SmbiosError::MemorySize { .. })
    ));
    for range in [
        0..0,
        Range {
            start: 5120,
            end: 1024,
        },
        0..GIB + 1,
        1..GIB,
    ] {
        assert!(matches!(
            with_memory(vec![range]),
            Err(SmbiosError::MemoryRange { .. })
        ));
    }
    let many = (0..0x1000)
        .map(|i| i << 21..(i << 21) + (1 << 20))
        .collect();
    assert!(matches!(
        with_memory(many),
        Err(SmbiosError::MemoryRanges { count: 0x1000, .. })
    ));
}

#[test]
fn sockets_have_limits() {
    for count in [0, 0xc01] {
        let mut machine = description();
        machine.processors = vec![processor(); count];
        assert!(matches!(
            machine.build(),
            Err(SmbiosError::Processors { .. })
        ));
    }
    let mut machine = description();
    machine.processors = vec![processor(); 0xc00];
    let smbios = machine.build().unwrap();
    assert_eq!(of_kind(&read(&smbios), 4).len(), 0xc00);
}

#[test]
fn the_bytes_never_change() {
    // A guest that resumes finds its SMBIOS as it was, from whatever version of the VMM.
    let Smbios { anchor, tables } = description().build().unwrap();
    let digest: String = Sha256::digest([anchor, tables].concat())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        digest,
        "bbe16bc198376f5656ca76b1d0c63c8f930d403d4eb0513d0a0d209429ffc9f9"
    );
}

fn is_valid(text: &str) -> bool {
    text.len() <= MAX_TEXT_LEN && text.chars().all(|c| (' '..='~').contains(&c))
}

proptest! {
    #[test]
    fn texts_arrive_or_are_refused(
        serial in prop_oneof!["[ -~]{0,70}", ".{0,20}", "\\PC{0,64}"],
        product in "[ -~]{0,64}",
        tag in "[a-z]{0,2}",
    ) {
        let mut machine = description();
        machine.system.serial = serial.clone();
        machine.system.product = product.clone();
        machine.baseboard.asset_tag = tag.clone();
        match machine.build() {
            Ok(smbios) => {
                prop_assert!(is_valid(&serial));
                let all = read(&smbios);
                prop_assert_eq!(all[1].text(7), serial);
                prop_assert_eq!(all[1].text(5), product);
                prop_assert_eq!(all[2].text(8), tag);
            }
            Err(SmbiosError::Text { field, text }) => {
                prop_assert!(!is_valid(&serial));
                prop_assert_eq!((field, text), ("system serial number", serial));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
