//! The devices of the linux-direct machine profile, and the ACPI tables that tell of them.

use super::MachineError;
use super::serial::SerialPorts;
use acpi_spec::ComPort;
use acpi_spec::InterruptControllers;
use acpi_spec::MmioWindows;
use acpi_spec::Processor;
use acpi_spec::Ps2Controller;
use acpi_spec::Rtc as AcpiRtc;
use acpi_spec::TableSet;
use chipset::debug_port::DebugPort;
use chipset::i8042::I8042;
use chipset::ioapic::IoApic;
use chipset::ioapic::IoApicPins;
use chipset::ioapic::IoApicRouting;
use chipset::ioapic::MsiRoute;
use chipset::pm::PmControl;
use chipset::pm::PmDevice;
use chipset::pm::RESET_OFFSET as PM_RESET_OFFSET;
use chipset::pm::RESET_VALUE as PM_RESET_VALUE;
use chipset::pvpanic::PvPanic;
use chipset::rtc::Rtc;
use chipset::rtc::WallClock;
use chipset::rtc::cmos_for_memory;
use chipset_device::LineSet;
use chipset_device::LineTarget;
use chipset_device::PowerSink;
use guest_memory::MemoryRange;
use openvmm_defs::config::Hibernation;
use openvmm_defs::config::SerialConfig;
use openvmm_defs::config::VmConfig;
use serial_16550::Serial16550;
use std::sync::Arc;
use virt::IrqchipMode;
use virt::Msi;
use virt::Partition;
use virt::Topology;
use vmotherboard::Chipset;
use vmotherboard::ChipsetBuilder;
use vmtime::VmClock;

/// First port and interrupt of COM1 to COM4.
const COM: [(&str, u16, u8); 4] = [
    ("com1", 0x3f8, 4),
    ("com2", 0x2f8, 3),
    ("com3", 0x3e8, 4),
    ("com4", 0x2e8, 3),
];
const RTC_BASE: u16 = 0x70;
const RTC_IRQ: u8 = 8;
/// Where the century is in the CMOS.
const RTC_CENTURY: u8 = 0x32;
const PM_BASE: u16 = 0x400;
const SCI_IRQ: u8 = 9;
const PVPANIC_PORT: u16 = 0x505;
const KEYBOARD_IRQ: u8 = 1;

/// Ports that Linux probes or writes on every PC and that this machine has nothing at: the diagnostic port and its
/// alternative as an I/O delay, PCI configuration, VGA, and (in split mode) the PICs and the PIT.
const ABSENT: &[std::ops::RangeInclusive<u16>] = &[
    0x80..=0x80,
    0xed..=0xed,
    0x3b0..=0x3df,
    0xcf8..=0xcff,
    0x20..=0x21,
    0xa0..=0xa1,
    0x4d0..=0x4d1,
    0x40..=0x43,
    0x61..=0x61,
];

/// The devices, behind the chipset.
pub(crate) struct Devices {
    pub chipset: Chipset,
    pub pm: PmControl,
    /// The pins of the VMM's IOAPIC, in split mode.
    pub ioapic: Option<IoApicPins>,
}

/// What the ACPI tables depend on.
pub(crate) struct AcpiConfig<'a> {
    pub topology: &'a Topology,
    pub irqchip: IrqchipMode,
    pub com_ports: &'a [SerialConfig; 4],
    pub hibernation: Hibernation,
}

/// The tables that describe the machine.
pub(crate) fn acpi_tables(config: &AcpiConfig<'_>) -> Result<TableSet, MachineError> {
    let com_ports = COM
        .iter()
        .zip(config.com_ports)
        .zip(1..)
        .filter(|((_, port), _)| **port != SerialConfig::None)
        .map(|(((_, base, irq), _), number)| ComPort {
            number,
            base: *base,
            irq: *irq,
        })
        .collect();
    Ok(TableSet::new(&acpi_spec::Machine {
        processors: config
            .topology
            .vps()
            .iter()
            .map(|vp| Processor {
                uid: vp.index.0 + 1,
                apic_id: vp.apic_id,
            })
            .collect(),
        interrupt_controllers: match config.irqchip {
            IrqchipMode::Kernel => InterruptControllers::IoApicAndPic,
            IrqchipMode::Split => InterruptControllers::IoApic,
        },
        pm_base: PM_BASE,
        pm_layout: acpi_spec::PmLayout::Compact,
        reset: acpi_spec::ResetRegister {
            port: PM_BASE + PM_RESET_OFFSET,
            value: PM_RESET_VALUE,
        },
        sci_irq: SCI_IRQ,
        hibernation: match config.hibernation {
            Hibernation::On => acpi_spec::Hibernation::S4,
            Hibernation::Off => acpi_spec::Hibernation::NotOffered,
        },
        sleep_announcements: None,
        com_ports,
        rtc: Some(AcpiRtc {
            base: RTC_BASE,
            irq: RTC_IRQ,
            century_index: Some(RTC_CENTURY),
        }),
        ps2: Some(Ps2Controller {
            keyboard_irq: KEYBOARD_IRQ,
            mouse_irq: None,
        }),
        pvpanic_port: Some(PVPANIC_PORT),
        mmio: MmioWindows::default(),
        pci: None,
        generation_id_event: None,
    })?)
}

/// Builds the devices.
pub(crate) fn build(
    config: &VmConfig,
    partition: &Arc<dyn Partition>,
    clock: &VmClock,
    power: &PowerSink,
    ram: &[MemoryRange],
    serial: &SerialPorts,
) -> Result<Devices, MachineError> {
    let mut builder = ChipsetBuilder::new();
    for ports in ABSENT {
        builder.ignore_ports(ports.clone());
    }

    let ioapic = match config.irqchip {
        IrqchipMode::Kernel => None,
        IrqchipMode::Split => {
            let routing = Arc::new(PartitionRouting(partition.clone()));
            let ioapic = IoApic::new(IoApic::DEFAULT_GPA, routing);
            let pins = ioapic.pins();
            builder.add("ioapic", |_| ioapic);
            Some(pins)
        }
    };
    let lines: Arc<dyn LineTarget> = match &ioapic {
        None => Arc::new(PartitionLines(partition.clone())),
        Some(pins) => Arc::new(pins.clone()),
    };
    let mut shared_lines: [Option<LineSet>; 16] = Default::default();
    let mut line = |irq: u8| {
        shared_lines[usize::from(irq)]
            .get_or_insert_with(|| LineSet::new(irq.into(), lines.clone()))
            .source()
    };

    for (index, (name, base, irq)) in COM.into_iter().enumerate() {
        match serial.com(index) {
            Some(port) => {
                builder.add(name, |context| {
                    Serial16550::new(base, line(irq), port.clone(), context.waker())
                });
            }
            None => builder.ignore_ports(base..=base + 7),
        }
    }
    let (low, high) = match ram {
        [low, high, ..] => (low.len(), high.len()),
        [low] => (low.len(), 0),
        [] => (0, 0),
    };
    let cmos = cmos_for_memory(low, high);
    builder.add("rtc", |context| {
        Rtc::new(
            line(RTC_IRQ),
            clock,
            WallClock::host(),
            context.waker(),
            &cmos,
        )
    });
    let pm = builder.add("pm", |context| {
        let pm = PmDevice::new(
            PM_BASE,
            line(SCI_IRQ),
            power.clone(),
            clock,
            context.waker(),
        );
        match config.hibernation {
            Hibernation::On => pm.with_hibernation(),
            Hibernation::Off => pm,
        }
    });
    let pm = pm.lock().control();
    builder.add("i8042", |_| I8042::new(line(KEYBOARD_IRQ), power.clone()));
    builder.add("pvpanic", |_| PvPanic::at_port(PVPANIC_PORT, power.clone()));
    if let (Some((port, _)), Some(line)) = (&config.debugcon, serial.debugcon()) {
        builder.add("debugcon", |_| DebugPort::new(*port, line.clone()));
    }
    Ok(Devices {
        chipset: builder.build()?,
        pm,
        ioapic,
    })
}
