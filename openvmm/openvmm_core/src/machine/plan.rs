//! The plan of a machine: what it is made of and what runs first, decided and checked before anything is built or written.

use super::MachineError;
use super::acpi::MachineTables;
use super::devices::DevicePlan;
use super::firmware::BootError;
use super::firmware::HibernationSink;
use super::firmware::LinuxBoot;
use super::firmware::UefiPlan;
use super::memory;
use super::view;
use super::view::Details;
use super::vmgs_store::PlannedStore;
use guest_memory::MemoryLayout;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::Start;
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

/// A machine that can be built.
pub(crate) struct MachinePlan {
    pub topology: Topology,
    pub layout: MemoryLayout,
    pub devices: DevicePlan,
    pub load: LoadPlan,
    /// The VMGS file.
    pub store: Option<PlannedStore>,
}

/// What runs first.
pub(crate) enum LoadPlan {
    /// A kernel that is loaded into guest memory.
    Linux(Box<LinuxBoot>),
    /// UEFI firmware in flash memory.
    PcUefi(Box<UefiPlan>),
}

impl MachinePlan {
    /// Plans the machine of `config` for this start on a host. `key` is that of its VMGS store.
    pub(crate) fn new(
        hypervisor: &dyn Hypervisor,
        config: &VmConfig,
        start: &Start,
        key: Option<Key>,
        events: HibernationSink,
    ) -> Result<Self, MachineError> {
        let address_bits = hypervisor.host_info()?.address_bits;
        let topology = Topology::new(config.topology)?;
        let layout = memory::layout(&config.memory, &config.load_mode, address_bits)?;
        let tables = MachineTables::new(config, &topology, &layout, address_bits);
        let devices = DevicePlan::new(config, &layout)?;
        let store = PlannedStore::new(config, start, key)?;
        if let (Start::Restore(_), Some(store)) = (start, &store) {
            store.require()?;
        }
        let hibernates = config.hibernation.enabled;
        let details = match &config.load_mode {
            LoadMode::PcUefi(_) if hibernates => Details {
                disks: Some(devices.disks()?),
                processor: Some(view::platform_processor(
                    &topology,
                    &hypervisor.guest_processor(&topology, &ProcessorFeatures::default())?,
                )),
            },
            _ => Details::default(),
        };
        let shape = MachineShape {
            config,
            topology: &topology,
            layout: &layout,
            address_bits,
            details: &details,
        };
        let load = match &config.load_mode {
            LoadMode::LinuxDirect(linux) => LoadPlan::Linux(Box::new(LinuxBoot::plan(
                linux,
                &tables.at_reset()?,
                &layout,
                address_bits,
            )?)),
            LoadMode::PcUefi(uefi) => {
                let plan = UefiPlan::new(
                    uefi,
                    &shape,
                    &devices,
                    tables,
                    store.as_ref(),
                    start,
                    events,
                );
                LoadPlan::PcUefi(Box::new(plan.map_err(BootError::Uefi)?))
            }
        };
        Ok(Self {
            topology,
            layout,
            devices,
            load,
            store,
        })
    }
}
