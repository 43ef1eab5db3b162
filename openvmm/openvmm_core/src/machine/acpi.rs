//! The ACPI tables that tell of the machine.

use super::firmware::GENERATION_ID_EVENT;
use super::platform;
use super::platform::Generation2Ranges;
use super::platform::PciWindows;
use super::platform::generation_2;
use acpi_spec::AcpiError;
use acpi_spec::AcpiPlatform;
use acpi_spec::ComPort;
use acpi_spec::InterruptControllers;
use acpi_spec::MmioWindows;
use acpi_spec::PciRoot;
use acpi_spec::Processor;
use acpi_spec::Ps2Controller;
use acpi_spec::ResetRegister;
use acpi_spec::RtcResources;
use acpi_spec::S4Support;
use acpi_spec::SleepAnnouncements;
use acpi_spec::Table;
use acpi_spec::TableSet;
use chipset::pm::PmLayout;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use openvmm_defs::config::VmConfig;
use serial_16550::COM_PORTS;
use serial_16550::Serial16550Handle;
use sleep_port::SleepPort;
use std::ops::Range;
use std::ops::RangeInclusive;
use virt::IrqchipMode;
use virt::Topology;

/// The tables of a machine, whose firmware decides where PCI functions are.
#[derive(Debug, Clone)]
pub(crate) struct MachineTables {
    platform: AcpiPlatform,
    layout: MemoryLayout,
    at_reset: PciWindows,
}

impl MachineTables {
    /// `address_bits` is the width of the processors' physical addresses.
    pub(crate) fn new(
        config: &VmConfig,
        topology: &Topology,
        layout: &MemoryLayout,
        address_bits: u8,
    ) -> Self {
        let at_reset = PciWindows::at_reset(layout, address_bits);
        Self {
            platform: platform(config, topology, &at_reset),
            layout: layout.clone(),
            at_reset,
        }
    }

    /// The tables for a guest without firmware, and until firmware has placed PCI functions.
    pub(crate) fn at_reset(&self) -> Result<TableSet, AcpiError> {
        TableSet::new(&self.platform)
    }

    /// The tables after firmware has set PCIEXBAR to `ecam` and memory BARs to `bars` (ascending). They have the sizes and
    /// pointers of those at reset.
    pub(crate) fn programmed(
        &self,
        ecam: Option<&RangeInclusive<u64>>,
        bars: &[u64],
    ) -> Result<TableSet, AcpiError> {
        let windows = self.at_reset.programmed(&self.layout, ecam, bars);
        TableSet::new(&AcpiPlatform {
            pci: Some(pci_root(&windows)),
            ..self.platform.clone()
        })
    }
}

fn pci_root(windows: &PciWindows) -> PciRoot {
    PciRoot {
        last_bus: platform::PCI_LAST_BUS,
        ecam: Some(windows.ecam),
        io: platform::PCI_IO.to_vec(),
        mmio: MmioWindows {
            low: Some(range(windows.low)),
            high: windows.high.map(range),
        },
        first_gsi: platform::PCI_FIRST_GSI,
    }
}

/// The tables that firmware of generation-2 VMs is given. It makes the others, and knows where the chipset's devices are.
pub(crate) fn generation_2(
    config: &VmConfig,
    topology: &Topology,
    ranges: &Generation2Ranges,
) -> Result<Vec<Table>, AcpiError> {
    let platform = AcpiPlatform {
        interrupt_controllers: interrupt_controllers(config),
        pm_base: generation_2::PM_BASE,
        reset: ResetRegister {
            port: generation_2::RESET_PORT,
            value: generation_2::RESET,
        },
        sci_irq: platform::SCI_IRQ,
        pci: ranges.pci.as_ref().map(|windows| PciRoot {
            io: Vec::new(),
            ..pci_root(windows)
        }),
        ..AcpiPlatform::bare(processors(topology))
    };
    let button = PmLayout::HyperV.power_button_event().unwrap_or_default();
    acpi_spec::generation_2_tables(&platform, button)
}

fn processors(topology: &Topology) -> Vec<Processor> {
    let vps = topology.vps().iter();
    vps.map(|vp| Processor {
        uid: vp.index.0 + 1,
        apic_id: vp.apic_id,
    })
    .collect()
}

fn interrupt_controllers(config: &VmConfig) -> InterruptControllers {
    match config.irqchip {
        IrqchipMode::Kernel => InterruptControllers::IoApicAndPic,
        IrqchipMode::Split => InterruptControllers::IoApic,
    }
}

fn platform(config: &VmConfig, topology: &Topology, windows: &PciWindows) -> AcpiPlatform {
    let serial_ports = config.chipset_devices.iter().filter_map(|device| {
        let port = device.resource.handle::<Serial16550Handle>()?.ok()?;
        let index = COM_PORTS.iter().position(|com| com.0 == port.base)?;
        Some(ComPort {
            number: index as u8 + 1,
            base: port.base,
            irq: port.irq,
        })
    });
    AcpiPlatform {
        processors: processors(topology),
        interrupt_controllers: interrupt_controllers(config),
        pm_base: platform::PM_BASE,
        reset: ResetRegister {
            port: q35::RESET_CONTROL,
            value: q35::RESET_SYSTEM,
        },
        sci_irq: platform::SCI_IRQ,
        s4: match config.hibernation.enabled {
            true => S4Support::Offered,
            false => S4Support::NotOffered,
        },
        sleep_announcements: Some(SleepAnnouncements {
            port: SleepPort::DEFAULT_PORT,
            prepare: sleep_port::PREPARE,
            wake: sleep_port::WAKE,
        }),
        com_ports: serial_ports.collect(),
        rtc: Some(RtcResources {
            base: platform::RTC_BASE,
            irq: platform::RTC_IRQ,
            century_index: Some(platform::RTC_CENTURY),
        }),
        ps2: Some(Ps2Controller {
            keyboard_irq: platform::KEYBOARD_IRQ,
        }),
        pvpanic_port: Some(platform::PVPANIC_PORT),
        pci: Some(pci_root(windows)),
        // The guest is told by its firmware where the ID is.
        generation_id_event: config.load_mode.is_pc_uefi().then_some(GENERATION_ID_EVENT),
    }
}

fn range(range: MemoryRange) -> Range<u64> {
    range.start..range.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::test_bench::Files;
    use virt::TopologyConfig;

    const ADDRESS_BITS: u8 = 40;

    fn topology() -> Topology {
        Topology::new(TopologyConfig {
            processors: 2,
            vps_per_socket: None,
            threads_per_core: 1,
        })
        .unwrap()
    }

    fn layout() -> MemoryLayout {
        MemoryLayout::new(64 << 20, platform::LOW_RAM_END, ADDRESS_BITS).unwrap()
    }

    #[test]
    fn serial_ports_have_their_numbers_and_interrupts() {
        let files = Files::new();
        let config = files.config(files.linux(), IrqchipMode::Kernel);
        let windows = PciWindows::at_reset(&layout(), ADDRESS_BITS);
        let platform = platform(&config, &topology(), &windows);
        let port = |number, base, irq| ComPort { number, base, irq };
        assert_eq!(platform.com_ports, [port(1, 0x3f8, 4), port(2, 0x2f8, 3)]);
    }

    #[test]
    fn generation_2_tables_describe_the_machine() {
        let files = Files::new();
        for (irqchip, has_pic) in [(IrqchipMode::Kernel, 1), (IrqchipMode::Split, 0)] {
            let config = files.config(files.hyperv(), irqchip);
            let ranges = Generation2Ranges::new(&config, &layout(), ADDRESS_BITS);
            let tables = generation_2(&config, &topology(), &ranges).unwrap();
            let signatures: Vec<_> = tables.iter().map(|table| &table.signature).collect();
            assert_eq!(signatures, [b"APIC", b"MCFG", b"SSDT"]);
            let [madt, _, ssdt] = &tables[..] else {
                panic!("three tables");
            };
            // PCAT_COMPAT.
            assert_eq!(madt.bytes[40], has_pic);
            // Local APICs: UID, APIC id, enabled.
            for processor in [[0, 8, 1, 0, 1, 0, 0, 0], [0, 8, 2, 1, 1, 0, 0, 0]] {
                assert!(madt.bytes.windows(8).any(|bytes| bytes == processor));
            }
            // There are no ports for PCI functions: no range of words.
            let contains = |wanted: &[u8]| ssdt.bytes.windows(wanted.len()).any(|w| w == wanted);
            assert!(!contains(&0xcf7_u16.to_le_bytes()));
            assert!(contains(&0xf7ff_ffff_u32.to_le_bytes()));
        }
    }
}
