//! The devices: those that every machine has, and those that a configuration adds.

use super::MachineError;
use super::firmware::UefiDevices;
use super::inventory;
use super::media;
use super::platform;
use crate::resolvers;
use chipset::I8042Handle;
use chipset::IoApicHandle;
use chipset::PmHandle;
use chipset::PvPanicHandle;
use chipset::RtcHandle;
use chipset::ioapic::IoApicRouting;
use chipset::pm::PmLayout;
use chipset_device::DoorbellTarget;
use chipset_device::InterruptLines;
use chipset_device::MachineContext;
use chipset_device::MsiTarget;
use chipset_device::PciAddress;
use chipset_device::PciSlotContext;
use chipset_device::Services;
use chipset_device::VpCount;
use firmware_uefi::FirmwareUefiHandle;
use firmware_uefi::NvramPlace;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use machine_parts::PartitionRouting;
use openvmm_defs::config::HypervUefi;
use openvmm_defs::config::Igvm;
use openvmm_defs::config::IgvmHost;
use openvmm_defs::config::IgvmHypervUefi;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::UefiDeviceConfig;
use openvmm_defs::config::VmConfig;
use openvmm_defs::devices::ChipsetDeviceConfig;
use openvmm_defs::devices::check_pci_slots;
use platform_digest::PlatformDevice;
use platform_digest::PlatformDisk;
use q35::ConfigPortsHandle;
use q35::EcamHandle;
use q35::HostBridgeHandle;
use q35::IsaBridgeHandle;
use sleep_port::SleepPortHandle;
use std::sync::Arc;
use uuid::Uuid;
use virt::IrqchipMode;
use virt::Partition;
use vm_resource::ResolveError;
use vm_resource::ResolvedDevice;
use vmotherboard::Chipset;
use vmotherboard::ChipsetBuilder;

/// The longest identity of a device that is compared.
const MAX_IDENTITY: usize = 200;

/// The devices that a machine will have.
pub(crate) struct DevicePlan {
    vm: Uuid,
    /// Those of every machine, in the order in which they are built: a device may use what an earlier one offers.
    profile: Vec<ResolvedDevice>,
    configured: Vec<ResolvedDevice>,
    pci: Vec<(ResolvedDevice, PciSlotContext)>,
}

impl DevicePlan {
    /// The devices of the machine that `config` describes.
    pub(crate) fn new(config: &VmConfig, layout: &MemoryLayout) -> Result<Self, MachineError> {
        check_pci_slots(&config.pci_devices)?;
        let registry = resolvers::devices();
        let resolve = |devices: &[ChipsetDeviceConfig]| {
            let devices = devices.iter();
            devices
                .map(|device| registry.resolve(&device.name, &device.resource))
                .collect::<Result<Vec<_>, ResolveError>>()
        };
        let numbers = config.pci_devices.iter().map(|device| device.slot.device);
        let pci = config.pci_devices.iter().map(|device| {
            let address = device.slot.address();
            let functions = numbers.clone().filter(|&number| number == address.device);
            let slot = PciSlotContext {
                address,
                gsi: pci_gsi(address),
                multifunction: functions.count() > 1,
            };
            Ok((registry.resolve(&device.name, &device.resource)?, slot))
        });
        Ok(Self {
            vm: Uuid::from_bytes(config.uuid),
            profile: resolve(&profile(config, layout))?,
            configured: resolve(&config.chipset_devices)?,
            pci: pci.collect::<Result<_, ResolveError>>()?,
        })
    }

    /// What of the devices a hibernated guest relies on.
    pub(crate) fn identities(&self) -> Vec<PlatformDevice> {
        let pci = self
            .pci
            .iter()
            .map(|(device, slot)| (device, Some(slot.address)));
        let chipset = self.configured.iter().chain(&self.profile);
        pci.chain(chipset.map(|device| (device, None)))
            .filter_map(|(device, pci)| {
                let identity = device.identity(self.vm)?;
                Some(PlatformDevice {
                    name: device.name().to_owned(),
                    pci,
                    identity: identity.chars().take(MAX_IDENTITY).collect(),
                })
            })
            .collect()
    }

    /// The names of the devices, which are those of their units.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let chipset = self.profile.iter().chain(&self.configured);
        let pci = self.pci.iter().map(|(device, _)| device);
        chipset.chain(pci).map(ResolvedDevice::name)
    }

    /// The number of MSI-X vectors of all devices together.
    pub(crate) fn msi_vectors(&self, vps: VpCount) -> u32 {
        let vectors = self.pci.iter().map(|(device, _)| device.msi_vectors(vps));
        vectors.fold(0, u32::saturating_add)
    }

    /// The disks and what is on them, before the devices are built.
    pub(crate) fn disks(&self) -> Result<Vec<PlatformDisk>, MachineError> {
        let pci = self.pci.iter().map(|(device, _)| device);
        let mut disks = Vec::new();
        for device in pci.chain(&self.configured) {
            if let Some(medium) = device.medium()? {
                disks.push(media::platform_disk(device.name(), medium));
            }
        }
        Ok(disks)
    }

    /// Builds the devices from what `services` offers, and adds to that what the devices offer.
    pub(crate) fn build(
        &self,
        services: &mut Services,
        partition: &Arc<dyn Partition>,
        firmware: Option<UefiDevices>,
    ) -> Result<Chipset, MachineError> {
        let mut builder = ChipsetBuilder::default();
        for ports in platform::IGNORED {
            builder.ignore_ports(ports.clone());
        }
        let chipset = self.profile.iter().chain(&self.configured);
        let chipset = chipset.map(|device| (device, None));
        let pci = self.pci.iter().map(|(device, slot)| (device, Some(*slot)));
        for (device, pci_slot) in chipset.chain(pci) {
            builder.try_add(device.name(), |context| {
                device.build(&mut MachineContext {
                    name: device.name(),
                    vm: self.vm,
                    pci_slot,
                    waker: context.waker.clone(),
                    decoder: context.decoder.clone(),
                    config_space: context.config_space.clone(),
                    services,
                })
            })?;
        }
        if let Some(firmware) = firmware {
            firmware.add(&mut builder, services, partition)?;
        }
        Ok(builder.build()?)
    }
}

/// Offers devices what `partition` has for them.
pub(crate) fn offer_partition(
    services: &mut Services,
    partition: &Arc<dyn Partition>,
    irqchip: IrqchipMode,
) {
    let msis: Arc<dyn MsiTarget> = partition.clone();
    services.offer(msis);
    let doorbells: Arc<dyn DoorbellTarget> = partition.clone();
    services.offer(doorbells);
    match irqchip {
        IrqchipMode::Kernel => services.offer(InterruptLines::new(partition.clone())),
        // The lines are the I/O APIC's.
        IrqchipMode::Split => {
            let routing: Arc<dyn IoApicRouting> =
                Arc::new(PartitionRouting::new(partition.clone()));
            services.offer(routing);
        }
    }
}

/// The devices of every machine with the profile of `config`.
fn profile(config: &VmConfig, layout: &MemoryLayout) -> Vec<ChipsetDeviceConfig> {
    let mut devices = Vec::new();
    if config.irqchip == IrqchipMode::Split {
        // First, because the interrupt lines of the others are its own.
        devices.push(ChipsetDeviceConfig::new("ioapic", &IoApicHandle {}));
    }
    let ram = |n: usize| layout.ram().get(n).map_or(0, MemoryRange::len);
    let rtc = RtcHandle {
        irq: platform::RTC_IRQ,
        ram_below_4g: ram(0),
        ram_above_4g: ram(1),
    };
    devices.push(ChipsetDeviceConfig::new("rtc", &rtc));
    match &config.load_mode {
        LoadMode::LinuxDirect(_)
        | LoadMode::PcUefi(_)
        | LoadMode::Igvm(Igvm {
            host: IgvmHost::Linux | IgvmHost::PcUefi(_),
            ..
        }) => devices.extend(pc(config)),
        LoadMode::HypervUefi(HypervUefi { device, .. })
        | LoadMode::Igvm(Igvm {
            host: IgvmHost::HypervUefi(IgvmHypervUefi { device, .. }),
            ..
        }) => devices.extend(generation_2(config, device)),
    }
    devices
}

/// The devices of a PC: those of a Q35, and what tells of a guest's panic and its sleep.
fn pc(config: &VmConfig) -> Vec<ChipsetDeviceConfig> {
    let pm = PmHandle {
        base: platform::PM_BASE,
        irq: platform::SCI_IRQ,
        offers_hibernation: config.hibernation.enabled,
        layout: PmLayout::Ich9,
    };
    let irq = platform::KEYBOARD_IRQ;
    let port = platform::PVPANIC_PORT;
    let ecam_base = platform::ECAM_BASE;
    let pm_base = platform::PM_BASE;
    vec![
        ChipsetDeviceConfig::new("pm", &pm),
        ChipsetDeviceConfig::new("i8042", &I8042Handle { irq }),
        ChipsetDeviceConfig::new("pvpanic", &PvPanicHandle { port }),
        ChipsetDeviceConfig::new("sleep", &SleepPortHandle {}),
        ChipsetDeviceConfig::new("pci", &ConfigPortsHandle {}),
        ChipsetDeviceConfig::new("ecam", &EcamHandle {}),
        ChipsetDeviceConfig::new("host-bridge", &HostBridgeHandle { ecam_base }),
        ChipsetDeviceConfig::new("isa-bridge", &IsaBridgeHandle { pm_base }),
    ]
}

/// The devices of a generation-2 VM of Hyper-V. PCI is there only for functions: its firmware needs none.
fn generation_2(config: &VmConfig, uefi: &UefiDeviceConfig) -> Vec<ChipsetDeviceConfig> {
    let pm = PmHandle {
        base: platform::generation_2::PM_BASE,
        irq: platform::SCI_IRQ,
        offers_hibernation: config.hibernation.enabled,
        layout: PmLayout::HyperV,
    };
    let has_store = config.vmgs.is_some() || config.vmgs_memory.is_some();
    let uefi = FirmwareUefiHandle {
        nvram: if has_store {
            NvramPlace::Vmgs
        } else {
            NvramPlace::Memory
        },
        secure_boot: uefi.secure_boot.clone(),
        log_level: uefi.log_level,
        generation_id: inventory::generation_id(config.uuid),
    };
    let mut devices = vec![
        ChipsetDeviceConfig::new("pm", &pm),
        // After what has the event of its generation ID.
        ChipsetDeviceConfig::new("uefi", &uefi),
    ];
    if !config.pci_devices.is_empty() {
        let ecam_base = platform::ECAM_BASE;
        devices.extend([
            ChipsetDeviceConfig::new("ecam", &EcamHandle {}),
            ChipsetDeviceConfig::new("host-bridge", &HostBridgeHandle { ecam_base }),
        ]);
    }
    devices
}

/// The line that pin A of a function drives.
fn pci_gsi(address: PciAddress) -> u32 {
    platform::PCI_FIRST_GSI + u32::from(address.device % 8)
}

#[cfg(test)]
#[path = "devices_test.rs"]
mod tests;
