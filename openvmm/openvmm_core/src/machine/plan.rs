//! The plan of a machine: what it is made of and what runs first, decided and checked before anything is built or written.

use super::MachineError;
use super::acpi::MachineTables;
use super::devices::DevicePlan;
use super::firmware::BootError;
use super::firmware::FirmwareSource;
use super::firmware::HibernationSink;
use super::firmware::HypervFirmware;
use super::firmware::HypervPlan;
use super::firmware::IgvmBoot;
use super::firmware::LinuxBoot;
use super::firmware::LoadedImage;
use super::firmware::PackedFirmware;
use super::firmware::PcFirmware;
use super::firmware::UefiPlan;
use super::memory;
use super::processor;
use super::snapshot;
use super::view;
use super::view::Details;
use super::vmgs_store::PlannedStore;
use chipset_device::VpCount;
use guest_memory::MemoryLayout;
use openvmm_defs::config::IgvmHost;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::MachineProfile;
use openvmm_defs::config::PcUefi;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::Start;
use virt::HostInfo;
use virt::Hypervisor;
use virt::ProcessorFeatures;
use virt::Topology;
use vmgs::Key;

/// The shape of a machine: all that its tables and its firmware are told about it.
#[derive(Clone, Copy)]
pub(crate) struct MachineShape<'a> {
    pub config: &'a VmConfig,
    pub topology: &'a Topology,
    pub layout: &'a MemoryLayout,
    /// Width of the processors' physical addresses.
    pub address_bits: u8,
    /// What a hibernated guest relies on beside that.
    pub details: &'a Details,
}

/// What the guest finds in its processors.
pub(crate) fn processor_features(config: &VmConfig) -> ProcessorFeatures {
    ProcessorFeatures {
        nested: config.nested,
        ..ProcessorFeatures::default()
    }
}

/// A machine that can be built.
pub(crate) struct MachinePlan {
    pub host: HostInfo,
    pub topology: Topology,
    pub layout: MemoryLayout,
    pub devices: DevicePlan,
    pub load: LoadPlan,
    /// The VMGS file.
    pub store: Option<PlannedStore>,
}

/// What runs first.
pub(crate) enum LoadPlan {
    /// An image that is loaded into guest memory.
    Image(Box<LoadedImage>),
    /// UEFI firmware in flash memory, and what is loaded into guest memory with it.
    PcUefi(Box<UefiPlan>, Option<Box<LoadedImage>>),
    /// The firmware of a generation-2 VM, which is loaded into guest memory.
    HypervUefi(Box<HypervPlan>),
}

impl MachinePlan {
    /// Plans the machine of `config` for this start on a host. `key` is that of its VMGS store.
    pub(crate) fn new(
        hypervisor: &dyn Hypervisor,
        config: &VmConfig,
        start: &Start,
        key: Option<Key>,
        events: &HibernationSink,
    ) -> Result<Self, MachineError> {
        let host = hypervisor.host_info()?;
        if config.nested && !host.nested {
            return Err(virt::Error::NestedNotSupported.into());
        }
        let address_bits = host.address_bits;
        let topology = Topology::new(config.topology)?;
        let layout = memory::layout(&config.memory, &config.load_mode, address_bits)?;
        let tables = MachineTables::new(config, &topology, &layout, address_bits);
        let devices = DevicePlan::new(config, &layout)?;
        let needed = devices.msi_vectors(VpCount(config.topology.processors));
        let available = hypervisor.max_msi_vectors(config.irqchip);
        if needed > available {
            return Err(MachineError::MsiVectors { needed, available });
        }
        if let Start::Restore(saved) = start {
            snapshot::check_units(&devices, saved)?;
            processor::check(hypervisor, &topology, &processor_features(config), saved)?;
            snapshot::check_disks(config, &devices, saved)?;
        }
        let store = PlannedStore::new(config, start, key)?;
        if let (Start::Restore(_), Some(store)) = (start, &store) {
            store.require()?;
        }
        let hibernates = config.hibernation.enabled;
        let has_firmware = config.load_mode.profile() != MachineProfile::LinuxDirect;
        let details = match hibernates && has_firmware {
            true => Details {
                disks: Some(devices.disks()?),
                processor: Some(view::platform_processor(
                    &topology,
                    &hypervisor.guest_processor(&topology, &processor_features(config))?,
                )),
            },
            false => Details::default(),
        };
        let shape = MachineShape {
            config,
            topology: &topology,
            layout: &layout,
            address_bits,
            details: &details,
        };
        let pc_uefi = |uefi: &PcUefi, source, tables| {
            let firmware = PcFirmware { uefi, source };
            let store = store.as_ref();
            let plan = UefiPlan::new(
                &firmware,
                &shape,
                &devices,
                tables,
                store,
                start,
                events.clone(),
            );
            plan.map(Box::new).map_err(BootError::Uefi)
        };
        let hyperv_uefi = |firmware, settings| {
            let (store, events) = (store.as_ref(), events.clone());
            let plan = HypervPlan::new(firmware, settings, &shape, &devices, store, start, events);
            plan.map(|plan| LoadPlan::HypervUefi(Box::new(plan)))
                .map_err(BootError::Uefi)
        };
        let load = match &config.load_mode {
            LoadMode::LinuxDirect(linux) => {
                let boot = LinuxBoot::plan(linux, &tables.at_reset()?, &layout, address_bits)?;
                LoadPlan::Image(Box::new(LoadedImage::Linux(boot)))
            }
            LoadMode::Igvm(igvm) => match &igvm.host {
                IgvmHost::Linux => {
                    let boot = IgvmBoot::linux(igvm, &shape, &tables.at_reset()?)?;
                    LoadPlan::Image(Box::new(LoadedImage::Igvm(boot)))
                }
                IgvmHost::PcUefi(host) => {
                    let at_reset = tables.at_reset()?;
                    let uefi = PcUefi {
                        code: igvm.file.clone(),
                        variables: host.variables.clone(),
                        kernel: host.kernel.clone(),
                    };
                    if hibernates {
                        let packed = PackedFirmware {
                            config: igvm,
                            machine: &shape,
                            tables: at_reset,
                        };
                        let firmware = FirmwareSource::Packed(packed);
                        LoadPlan::PcUefi(pc_uefi(&uefi, firmware, tables)?, None)
                    } else {
                        let (boot, firmware) = IgvmBoot::pc_uefi(igvm, &shape, &at_reset)?;
                        let boot = Box::new(LoadedImage::Igvm(boot));
                        LoadPlan::PcUefi(pc_uefi(&uefi, firmware, tables)?, Some(boot))
                    }
                }
                IgvmHost::HypervUefi(uefi) => {
                    hyperv_uefi(HypervFirmware::Igvm(&igvm.file), &uefi.settings)?
                }
            },
            LoadMode::PcUefi(uefi) => {
                let firmware = FirmwareSource::File(uefi.code.clone());
                LoadPlan::PcUefi(pc_uefi(uefi, firmware, tables)?, None)
            }
            LoadMode::HypervUefi(uefi) => {
                let firmware = HypervFirmware::Image(&uefi.firmware);
                hyperv_uefi(firmware, &uefi.settings)?
            }
        };
        Ok(Self {
            host,
            topology,
            layout,
            devices,
            load,
            store,
        })
    }
}
