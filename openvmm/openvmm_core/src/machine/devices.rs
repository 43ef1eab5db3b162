//! The chipset's devices.

use super::MachineError;
use super::firmware::FirmwareDevices;
use super::firmware::FirmwareSockets;
use super::pci::PciSockets;
use super::platform;
use super::serial::SerialPorts;
use chipset::debug_port::DebugPort;
use chipset::i8042::I8042;
use chipset::ioapic::IoApic;
use chipset::ioapic::IoApicPins;
use chipset::pm::PmControl;
use chipset::pm::PmDevice;
use chipset::pvpanic::PvPanic;
use chipset::rtc::Rtc;
use chipset::rtc::WallClock;
use chipset::rtc::cmos_for_memory;
use chipset_device::LineInterrupt;
use chipset_device::LineSet;
use chipset_device::LineTarget;
use chipset_device::PowerSink;
use guest_memory::GuestMemory;
use machine_parts::PartitionLines;
use machine_parts::PartitionRouting;
use openvmm_defs::config::Hibernation;
use openvmm_defs::config::VmConfig;
use q35::ConfigPorts;
use q35::Ecam;
use q35::HostBridge;
use q35::IsaBridge;
use serial_16550::Serial16550;
use sleep_port::AnnouncementSink;
use sleep_port::SleepPort;
use std::sync::Arc;
use virt::IrqchipMode;
use virt::Partition;
use vmotherboard::Chipset;
use vmotherboard::ChipsetBuilder;
use vmtime::VmClock;

/// The devices, behind the chipset.
pub(crate) struct Devices {
    pub chipset: Chipset,
    pub pm: PmControl,
    /// The pins of the VMM's IOAPIC, in split mode.
    pub ioapic: Option<IoApicPins>,
}

/// What devices are made from.
pub(crate) struct DeviceParts<'a> {
    pub config: &'a VmConfig,
    pub partition: &'a Arc<dyn Partition>,
    pub clock: &'a VmClock,
    pub power: &'a PowerSink,
    pub memory: &'a GuestMemory,
    pub serial: &'a SerialPorts,
    pub firmware: FirmwareDevices,
    pub announcements: AnnouncementSink,
}

/// The interrupt lines into the interrupt controllers. Devices may share one.
struct Lines {
    target: Arc<dyn LineTarget>,
    made: [Option<LineSet>; 24],
}

impl Lines {
    fn line(&mut self, gsi: u32) -> LineInterrupt {
        self.made[gsi as usize]
            .get_or_insert_with(|| LineSet::new(gsi, self.target.clone()))
            .source()
    }

    fn irq(&mut self, irq: u8) -> LineInterrupt {
        self.line(irq.into())
    }
}

/// Builds the devices.
pub(crate) fn build(parts: DeviceParts<'_>) -> Result<Devices, MachineError> {
    let DeviceParts {
        config,
        partition,
        clock,
        power,
        memory,
        serial,
        firmware,
        announcements,
    } = parts;
    let mut builder = ChipsetBuilder::new();
    for ports in platform::ABSENT {
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
    let mut lines = Lines {
        target: match &ioapic {
            None => Arc::new(PartitionLines(partition.clone())),
            Some(pins) => Arc::new(pins.clone()),
        },
        made: Default::default(),
    };
    add_serial_ports(&mut builder, &mut lines, serial);
    let (low, high) = match memory.layout().ram() {
        [low, high, ..] => (low.len(), high.len()),
        [low] => (low.len(), 0),
        [] => (0, 0),
    };
    let cmos = cmos_for_memory(low, high);
    builder.add("rtc", |context| {
        Rtc::new(
            lines.irq(platform::RTC_IRQ),
            clock,
            WallClock::host(),
            context.waker(),
            &cmos,
        )
    });
    let pm = builder.add("pm", |context| {
        let pm = PmDevice::new(
            platform::PM_BASE,
            lines.irq(platform::SCI_IRQ),
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
    builder.add("i8042", |_| {
        I8042::new(lines.irq(platform::KEYBOARD_IRQ), power.clone())
    });
    builder.add("pvpanic", |_| {
        PvPanic::at_port(platform::PVPANIC_PORT, power.clone())
    });
    builder.add("sleep", |_| {
        SleepPort::new(SleepPort::DEFAULT_PORT, announcements)
    });
    if let (Some((port, _)), Some(line)) = (&config.debugcon, serial.debugcon()) {
        builder.add("debugcon", |_| DebugPort::new(*port, line.clone()));
    }

    builder.add("pci", |context| {
        ConfigPorts::new(context.pci_config_space(), power.clone())
    });
    let ecam = builder.add("ecam", |context| {
        Ecam::new(context.pci_config_space(), context.decoder())
    });
    let window = ecam.lock().window();
    builder.try_add("host-bridge", |_| {
        HostBridge::new(platform::ECAM_BASE, window)
    })?;
    builder.try_add("isa-bridge", |_| IsaBridge::new(platform::PM_BASE))?;
    PciSockets {
        builder: &mut builder,
        memory,
        partition,
        uuid: config.uuid,
        partition_vps: config.topology.processors as u16,
        line: &mut |gsi| lines.line(gsi),
    }
    .plug_in(&config.pci_devices)?;
    firmware.add(FirmwareSockets {
        builder: &mut builder,
        partition,
        memory,
        pm: &pm,
    })?;
    Ok(Devices {
        chipset: builder.build()?,
        pm,
        ioapic,
    })
}

fn add_serial_ports(builder: &mut ChipsetBuilder, lines: &mut Lines, serial: &SerialPorts) {
    for (index, (name, base, irq)) in platform::COM.into_iter().enumerate() {
        match serial.com(index) {
            Some(port) => {
                builder.add(name, |context| {
                    Serial16550::new(base, lines.irq(irq), port.clone(), context.waker())
                });
            }
            None => builder.ignore_ports(base..=base + 7),
        }
    }
}
