//! The devices: those that every machine has, and those that a configuration adds.

use super::MachineError;
use super::firmware::FirmwareDevices;
use super::platform;
use crate::resolvers;
use chipset::I8042Handle;
use chipset::IoApicHandle;
use chipset::PmHandle;
use chipset::PvPanicHandle;
use chipset::RtcHandle;
use chipset::ioapic::IoApicRouting;
use chipset_device::ChipsetDeviceHandle;
use chipset_device::DeviceBuildError;
use chipset_device::DoorbellTarget;
use chipset_device::InterruptLines;
use chipset_device::MachineContext;
use chipset_device::MsiTarget;
use chipset_device::PciAddress;
use chipset_device::PciDeviceHandle;
use chipset_device::PciSlotContext;
use chipset_device::Services;
use chipset_device::SharedDevice;
use guest_memory::MemoryLayout;
use machine_parts::PartitionDoorbells;
use machine_parts::PartitionLines;
use machine_parts::PartitionMsis;
use machine_parts::PartitionRouting;
use openvmm_defs::config::Hibernation;
use openvmm_defs::config::VmConfig;
use openvmm_defs::devices::ChipsetDeviceConfig;
use platform_digest::Device;
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
use vmotherboard::Chipset;
use vmotherboard::ChipsetBuilder;

/// The longest identity of a device that is compared.
const MAX_IDENTITY: usize = 200;

/// The devices that a machine will have: known kinds, each with a place.
pub(crate) struct DevicePlan {
    vm: Uuid,
    /// Those of every machine, in the order in which they are built: a device may use what an earlier one offers.
    profile: Vec<(String, Box<dyn ChipsetDeviceHandle>)>,
    configured: Vec<(String, Box<dyn ChipsetDeviceHandle>)>,
    pci: Vec<(String, PciSlotContext, Box<dyn PciDeviceHandle>)>,
}

impl DevicePlan {
    /// The devices of the machine that `config` describes.
    pub(crate) fn new(config: &VmConfig, layout: &MemoryLayout) -> Result<Self, ResolveError> {
        let (chipset, pci) = (resolvers::chipset_devices(), resolvers::pci_devices());
        let resolve = |devices: &[ChipsetDeviceConfig]| {
            let devices = devices.iter().map(|device| {
                let handle = chipset.resolve(&device.name, &device.resource)?;
                Ok((device.name.clone(), handle))
            });
            devices.collect::<Result<Vec<_>, ResolveError>>()
        };
        let pci = config.pci_devices.iter().map(|device| {
            let number = device.slot.device;
            let functions = config.pci_devices.iter();
            let functions = functions.filter(|other| other.slot.device == number);
            let slot = PciSlotContext {
                address: device.slot.address(),
                gsi: pci_gsi(device.slot.address()),
                multifunction: functions.count() > 1,
            };
            let handle = pci.resolve(&device.name, &device.resource)?;
            Ok((device.name.clone(), slot, handle))
        });
        Ok(Self {
            vm: Uuid::from_bytes(config.uuid),
            profile: resolve(&profile(config, layout))?,
            configured: resolve(&config.chipset_devices)?,
            pci: pci.collect::<Result<_, ResolveError>>()?,
        })
    }

    /// What of the devices a hibernated guest relies on.
    pub(crate) fn identities(&self) -> Vec<Device> {
        let pci = self.pci.iter().map(|(name, slot, handle)| {
            let identity = handle.identity(name, self.vm);
            (name, Some(slot.address), identity)
        });
        let chipset = self.configured.iter().chain(&self.profile);
        let chipset = chipset.filter_map(|(name, handle)| Some((name, None, handle.identity()?)));
        pci.chain(chipset)
            .map(|(name, pci, identity)| Device {
                name: name.clone(),
                pci,
                identity: identity.chars().take(MAX_IDENTITY).collect(),
            })
            .collect()
    }

    /// Builds the devices from what `services` offers, and adds to that what the devices offer.
    pub(crate) fn build(
        &self,
        services: &mut Services,
        partition: &Arc<dyn Partition>,
        firmware: FirmwareDevices,
    ) -> Result<Chipset, MachineError> {
        let mut builder = ChipsetBuilder::new();
        for ports in platform::IGNORED {
            builder.ignore_ports(ports.clone());
        }
        let mut add = |name: &str, build: &dyn Fn(&mut MachineContext<'_>) -> BuildResult| {
            builder.try_add(name, |context| {
                let mut machine = MachineContext {
                    name,
                    vm: self.vm,
                    waker: context.waker(),
                    decoder: context.decoder(),
                    config_space: context.pci_config_space(),
                    services,
                };
                build(&mut machine).map_err(|source| ResolveError::Build {
                    name: name.to_owned(),
                    source,
                })
            })
        };
        for (name, handle) in self.profile.iter().chain(&self.configured) {
            add(name, &|machine| handle.build(machine))?;
        }
        for (name, slot, handle) in &self.pci {
            add(name, &|machine| handle.build(slot, machine))?;
        }
        firmware.add(&mut builder, services, partition)?;
        Ok(builder.build()?)
    }
}

type BuildResult = Result<SharedDevice, DeviceBuildError>;

/// What `partition` offers to devices.
pub(crate) fn partition_services(partition: &Arc<dyn Partition>, irqchip: IrqchipMode) -> Services {
    let mut services = Services::new();
    let msis: Arc<dyn MsiTarget> = Arc::new(PartitionMsis(partition.clone()));
    services.offer(msis);
    let doorbells: Arc<dyn DoorbellTarget> = Arc::new(PartitionDoorbells(partition.clone()));
    services.offer(doorbells);
    match irqchip {
        IrqchipMode::Kernel => {
            let lines = Arc::new(PartitionLines(partition.clone()));
            services.offer(InterruptLines::new(lines));
        }
        // The lines are the I/O APIC's.
        IrqchipMode::Split => {
            let routing: Arc<dyn IoApicRouting> = Arc::new(PartitionRouting(partition.clone()));
            services.offer(routing);
        }
    }
    services
}

/// The devices of every machine.
fn profile(config: &VmConfig, layout: &MemoryLayout) -> Vec<ChipsetDeviceConfig> {
    let ram = |n: usize| layout.ram().get(n).map_or(0, |range| range.len());
    let ioapic = match config.irqchip {
        IrqchipMode::Kernel => None,
        IrqchipMode::Split => Some(ChipsetDeviceConfig::new("ioapic", &IoApicHandle {})),
    };
    let rtc = RtcHandle {
        irq: platform::RTC_IRQ,
        ram_below_4g: ram(0),
        ram_above_4g: ram(1),
    };
    let pm = PmHandle {
        base: platform::PM_BASE,
        irq: platform::SCI_IRQ,
        offers_hibernation: config.hibernation == Hibernation::On,
    };
    let i8042 = I8042Handle {
        irq: platform::KEYBOARD_IRQ,
    };
    let pvpanic = PvPanicHandle {
        port: platform::PVPANIC_PORT,
    };
    let host_bridge = HostBridgeHandle {
        ecam_base: platform::ECAM_BASE,
    };
    let isa_bridge = IsaBridgeHandle {
        pm_base: platform::PM_BASE,
    };
    ioapic
        .into_iter()
        .chain([
            ChipsetDeviceConfig::new("rtc", &rtc),
            ChipsetDeviceConfig::new("pm", &pm),
            ChipsetDeviceConfig::new("i8042", &i8042),
            ChipsetDeviceConfig::new("pvpanic", &pvpanic),
            ChipsetDeviceConfig::new("sleep", &SleepPortHandle {}),
            ChipsetDeviceConfig::new("pci", &ConfigPortsHandle {}),
            ChipsetDeviceConfig::new("ecam", &EcamHandle {}),
            ChipsetDeviceConfig::new("host-bridge", &host_bridge),
            ChipsetDeviceConfig::new("isa-bridge", &isa_bridge),
        ])
        .collect()
}

/// The line that pin A of a function drives.
fn pci_gsi(address: PciAddress) -> u32 {
    platform::PCI_FIRST_GSI + u32::from(address.device % 8)
}

#[cfg(test)]
#[path = "devices_test.rs"]
mod tests;
