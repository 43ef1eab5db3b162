//! Sample platforms, and what is no platform.

use super::*;
use crate::TableSet;

pub(crate) fn processors(count: u32) -> Vec<Processor> {
    (0..count)
        .map(|i| Processor {
            uid: i + 1,
            apic_id: i,
        })
        .collect()
}

/// A Q35-like machine.
pub(crate) fn pc_uefi(processors: Vec<Processor>) -> AcpiPlatform {
    AcpiPlatform {
        pm_base: 0x600,
        reset: ResetRegister {
            port: 0xcf9,
            value: 6,
        },
        sleep_announcements: Some(SleepAnnouncements {
            port: 0x506,
            prepare: 0x10,
            wake: 0x20,
        }),
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
        ..full(processors)
    }
}

pub(crate) fn full(processors: Vec<Processor>) -> AcpiPlatform {
    let com = |number, base, irq| ComPort { number, base, irq };
    AcpiPlatform {
        interrupt_controllers: InterruptControllers::IoApicAndPic,
        s4: S4Support::Offered,
        com_ports: vec![
            com(1, 0x3f8, 4),
            com(2, 0x2f8, 3),
            com(3, 0x3e8, 4),
            com(4, 0x2e8, 3),
        ],
        rtc: Some(RtcResources {
            base: 0x70,
            irq: 8,
            century_index: Some(0x32),
        }),
        ps2: Some(Ps2Controller { keyboard_irq: 1 }),
        pvpanic_port: Some(0x505),
        ..AcpiPlatform::bare(processors)
    }
}

#[test]
fn impossible_machines_are_refused() {
    let refused = |change: &dyn Fn(&mut AcpiPlatform)| {
        let mut machine = pc_uefi(processors(2));
        change(&mut machine);
        TableSet::new(&machine).unwrap_err()
    };
    assert_eq!(refused(&|m| m.processors.clear()), AcpiError::NoProcessors);
    assert_eq!(
        refused(&|m| m.processors = processors(4097)),
        AcpiError::TooManyProcessors { count: 4097 }
    );
    assert_eq!(
        refused(&|m| m.processors[1].uid = 1),
        AcpiError::ProcessorUid { uid: 1 }
    );
    assert_eq!(
        refused(&|m| m.processors[1].apic_id = 0),
        AcpiError::ApicId { apic_id: 0 }
    );
    assert_eq!(
        refused(&|m| m.com_ports[1].number = 1),
        AcpiError::ComNumber { number: 1 }
    );
    assert!(matches!(
        refused(&|m| m.pm_base = 0xfff0),
        AcpiError::Ports { .. }
    ));
    assert!(matches!(
        refused(&|m| m.sci_irq = 16),
        AcpiError::Irq { irq: 16, .. }
    ));
    assert!(matches!(
        refused(&|m| m.pci.as_mut().unwrap().mmio.low = Some(0x1000..0x1000)),
        AcpiError::MmioWindow { .. }
    ));
}
