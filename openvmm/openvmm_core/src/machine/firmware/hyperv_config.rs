//! What the firmware of a generation-2 VM is told of its machine.

use crate::machine::inventory;
use crate::machine::plan::MachineShape;
use crate::machine::platform::Generation2Ranges;
use acpi_spec::Table;
use guest_memory::MemoryRange;
use openvmm_defs::config::BootFailure;
use openvmm_defs::config::DefaultBoot;
use openvmm_defs::config::FirmwareConsole;
use openvmm_defs::config::FirmwareMemoryProtection;
use openvmm_defs::config::HypervUefiSettings;
use openvmm_defs::config::VmConfig;
use platform_digest::BlobDigest;
use serial_16550::COM_PORTS;
use serial_16550::Serial16550Handle;
use std::ops::Range;
use uefi_config::ConsoleMode;
use uefi_config::ENTROPY_LEN;
use uefi_config::MemoryEntry;
use uefi_config::MemoryProtection;
use uefi_config::MemoryUse;
use uefi_config::PcieApertures;
use uefi_config::ProcessorCounts;
use uefi_config::ProcessorStrings;
use uefi_config::SmbiosStrings;
use uefi_config::UefiConfig;
use uefi_config::UefiFlags;
use uuid::Uuid;

/// The `_UID` of the host bridge in the ACPI tables.
const HOST_BRIDGE_UID: u32 = 0;

/// The configuration of `machine`, without random bytes, for an image of no size yet.
pub(crate) fn config(
    settings: &HypervUefiSettings,
    machine: &MachineShape<'_>,
    ranges: &Generation2Ranges,
    tables: &[Table],
) -> UefiConfig {
    let vps = machine.topology.vps().len() as u32;
    let pcie = ranges.pci.as_ref().map(|windows| PcieApertures {
        segment: 0,
        first_bus: 0,
        last_bus: crate::machine::platform::PCI_LAST_BUS,
        uid: HOST_BRIDGE_UID,
        low: range(windows.low),
        high: windows.high.map_or(0..0, range),
    });
    UefiConfig {
        image_pages: 0,
        memory_map: machine
            .layout
            .ram()
            .iter()
            .map(|ram| MemoryEntry {
                base: ram.start,
                len: ram.len(),
                usage: MemoryUse::Ram,
            })
            .collect(),
        entropy: [0; ENTROPY_LEN],
        bios_guid: Uuid::from_bytes(machine.config.uuid),
        flags: flags(settings, machine.config),
        processors: ProcessorCounts {
            max: vps,
            count: vps,
            per_socket: machine.topology.vps_per_socket(),
            threads_per_core: machine.topology.threads_per_core(),
        },
        low_mmio: range(ranges.low_gap),
        high_mmio: range(ranges.high_gap),
        smbios: smbios(machine),
        smbios_processor: None,
        acpi_tables: tables.iter().map(|table| table.bytes.clone()).collect(),
        nvdimms: None,
        vpci_instance: None,
        gic: None,
        pcie: pcie.into_iter().collect(),
    }
}

/// The digest of what SMBIOS is made from.
pub(crate) fn smbios_digest(config: &UefiConfig) -> BlobDigest {
    let text = format!("{:?} {:?}", config.smbios, config.smbios_processor);
    BlobDigest::of([("smbios", text.as_bytes())])
}

fn flags(settings: &HypervUefiSettings, config: &VmConfig) -> UefiFlags {
    let has_com = |n: usize| {
        let mut devices = config.chipset_devices.iter();
        devices.any(|device| {
            let port = device.resource.handle::<Serial16550Handle>();
            matches!(port, Some(Ok(port)) if port.base == COM_PORTS[n].0)
        })
    };
    let console = match settings.console {
        Some(FirmwareConsole::Video) => ConsoleMode::Video,
        Some(FirmwareConsole::Com1) => ConsoleMode::Com1,
        Some(FirmwareConsole::Com2) => ConsoleMode::Com2,
        Some(FirmwareConsole::None) => ConsoleMode::None,
        None if has_com(0) && !settings.debugger => ConsoleMode::Com1,
        None if has_com(1) => ConsoleMode::Com2,
        None => ConsoleMode::None,
    };
    UefiFlags::new()
        .with_serial_ports(has_com(0) || has_com(1))
        .with_debugger(settings.debugger)
        .with_hibernation(config.hibernation.enabled)
        .with_console(console)
        .with_disable_front_page(settings.boot_failure == BootFailure::PowerOff)
        .with_default_boot_always_attempt(settings.default_boot == DefaultBoot::Always)
        .with_memory_protection(match settings.memory_protection {
            FirmwareMemoryProtection::Off => MemoryProtection::Off,
            FirmwareMemoryProtection::Default => MemoryProtection::Default,
            FirmwareMemoryProtection::Strict => MemoryProtection::Strict,
            FirmwareMemoryProtection::Relaxed => MemoryProtection::Relaxed,
        })
        .with_mtrrs_initialized(true)
        .with_vmbus_disabled(true)
        .with_force_dma_bounce(settings.dma_bounce)
}

/// The same VM has the same strings, whatever the version of the VMM.
fn smbios(machine: &MachineShape<'_>) -> SmbiosStrings {
    let description = inventory::smbios(machine.config.uuid, machine.topology, machine.layout);
    let system = description.system;
    let processor = description.processors.into_iter().next();
    SmbiosStrings {
        manufacturer: system.manufacturer,
        product: system.product,
        version: "hyperv-uefi".into(),
        processor: ProcessorStrings {
            manufacturer: processor.map_or_else(String::new, |one| one.manufacturer),
            ..ProcessorStrings::default()
        },
        ..SmbiosStrings::default()
    }
}

fn range(range: MemoryRange) -> Range<u64> {
    range.start..range.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::test_bench::Files;
    use crate::machine::test_bench::serial;
    use openvmm_defs::devices::ChipsetDeviceConfig;
    use serial_16550::SerialEnd;
    use virt::IrqchipMode;

    #[test]
    fn flags_follow_the_settings_and_the_devices() {
        let files = Files::new();
        let mut config = files.config(files.hyperv(), IrqchipMode::Kernel);
        let settings = HypervUefiSettings::default();
        let base = 1 << 28 | 1 << 30;
        let hibernation = 1 << 6;
        let bits =
            |settings: &HypervUefiSettings, config: &VmConfig| flags(settings, config).into_bits();
        assert_eq!(bits(&settings, &config), base | hibernation | 1 | 1 << 7);
        config.hibernation.enabled = false;
        assert_eq!(bits(&settings, &config), base | 1 | 1 << 7);
        let debugger = HypervUefiSettings {
            debugger: true,
            ..settings
        };
        assert_eq!(bits(&debugger, &config), base | 1 | 1 << 3 | 2 << 7);
        let all = HypervUefiSettings {
            console: Some(FirmwareConsole::Video),
            memory_protection: FirmwareMemoryProtection::Relaxed,
            boot_failure: BootFailure::PowerOff,
            default_boot: DefaultBoot::Always,
            debugger: false,
            dma_bounce: true,
        };
        let expected = base | 1 | 1 << 14 | 1 << 15 | 3 << 21 | 1 << 32;
        assert_eq!(bits(&all, &config), expected);
        let com = |n| ChipsetDeviceConfig::new("com", &serial(n, SerialEnd::Stderr));
        config.chipset_devices = vec![com(1)];
        assert_eq!(bits(&settings, &config), base | 1 | 2 << 7);
        // COM3 is not one of the firmware's.
        config.chipset_devices = vec![com(2)];
        assert_eq!(bits(&settings, &config), base | 3 << 7);
    }
}
