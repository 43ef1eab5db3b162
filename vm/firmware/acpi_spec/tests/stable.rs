//! The tables of two machines, byte for byte. A guest that hibernated compares the tables it finds with those it
//! had: where a digest changes, it does not wake.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use acpi_spec::*;
use sha2::Digest;
use sha2::Sha256;

fn digest(parts: impl IntoIterator<Item = Vec<u8>>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn pc(processors: u32) -> AcpiPlatform {
    AcpiPlatform {
        interrupt_controllers: InterruptControllers::IoApicAndPic,
        pm_base: 0x600,
        reset: ResetRegister {
            port: 0xcf9,
            value: 6,
        },
        sci_irq: 9,
        s4: S4Support::Offered,
        sleep_announcements: Some(SleepAnnouncements {
            port: 0x506,
            prepare: 0x10,
            wake: 0x20,
        }),
        com_ports: vec![ComPort {
            number: 1,
            base: 0x3f8,
            irq: 4,
        }],
        rtc: Some(RtcResources {
            base: 0x70,
            irq: 8,
            century_index: Some(0x32),
        }),
        ps2: Some(Ps2Controller { keyboard_irq: 1 }),
        pvpanic_port: Some(0x505),
        pci: Some(PciRoot {
            last_bus: 255,
            ecam: Some(0xb000_0000),
            io: vec![0..=0xcf7, 0xd00..=0xffff],
            mmio: MmioWindows {
                low: Some(0xc000_0000..0xfc00_0000),
                high: Some(0x8_0000_0000..0x10_0000_0000),
            },
            first_gsi: 16,
        }),
        ..AcpiPlatform::bare(
            (0..processors)
                .map(|i| Processor {
                    uid: i + 1,
                    apic_id: i,
                })
                .collect(),
        )
    }
}

#[test]
fn tables_at_an_address() {
    let machine = AcpiPlatform {
        interrupt_controllers: InterruptControllers::IoApic,
        s4: S4Support::NotOffered,
        com_ports: (1..)
            .zip([(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)])
            .map(|(number, (base, irq))| ComPort { number, base, irq })
            .collect(),
        rtc: None,
        ps2: None,
        // Past the ids of local APICs.
        ..pc(300)
    };
    let placed = TableSet::new(&machine).unwrap().place(0x1_9000).unwrap();
    assert_eq!(
        digest([placed.bytes, placed.rsdp]),
        "c08ade91bda9bd32306e31fa490df5cca45f0c9cc1583aafbbcd49988f921166"
    );
}

#[test]
fn tables_for_a_firmware() {
    let machine = AcpiPlatform {
        generation_id_event: Some(4),
        ..pc(4)
    };
    let files = TableSet::new(&machine).unwrap().loader_files().unwrap();
    let parts = files
        .into_iter()
        .flat_map(|file| [file.name.as_bytes().to_vec(), file.bytes]);
    assert_eq!(
        digest(parts),
        "7054ddfecd5e60c2fc94f7e7c60d3664a780f827e466f69494a7b6dc664f8e46"
    );
}
