//! Building a planned machine: guest memory, the partition, the devices around it, and the units they are started by.

use super::Machine;
use super::MachineError;
use super::devices;
use super::devices::DeviceParts;
use super::devices::Devices;
use super::firmware::SESSION_UNIT;
use super::firmware::SharedSession;
use super::firmware::UefiPlan;
use super::guest::MachineGuest;
use super::memory;
use super::plan::LoadPlan;
use super::plan::MachinePlan;
use super::serial::SerialPorts;
use super::vmgs_store::PlannedStore;
use chipset::pm::PmControl;
use guest_memory::GuestMemory;
use machine_parts::BindingVps;
use machine_parts::ClockUnit;
use machine_parts::DeviceUnit;
use machine_parts::EnlightenmentUnit;
use machine_parts::Lifecycle;
use machine_parts::LifecycleEvent;
use machine_parts::MachineBus;
use machine_parts::OnReset;
use machine_parts::PartitionUnit;
use machine_parts::RunControl;
use machine_parts::VpSet;
use machine_parts::VpsUnit;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::Start;
use state_unit::StateUnits;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use virt::Hypervisor;
use virt::IoBus;
use virt::NewPartition;
use virt::PartitionConfig;
use virt::ProcessorFeatures;
use virt::Topology;
use vmotherboard::Chipset;
use vmtime::VmClock;

/// The host's ends of a machine.
pub(crate) struct HostEnds {
    /// Takes the output of the serial port that is the console.
    pub console_output: Box<dyn Write + Send>,
    /// Stops the guest, and reports why.
    pub control: RunControl,
    /// Hears of what happens to the machine.
    pub events: Box<dyn Fn(Instant, LifecycleEvent) + Send>,
    /// What a reset by the guest does.
    pub on_reset: OnReset,
}

impl MachinePlan {
    /// Builds the machine, and brings the guest to where `start` begins. No VP runs.
    pub(crate) fn build(
        self,
        hypervisor: &dyn Hypervisor,
        config: &VmConfig,
        start: &Start,
        ends: HostEnds,
    ) -> Result<Machine, MachineError> {
        let Self {
            topology,
            layout,
            load,
            store,
        } = self;
        if let Some(store) = &store {
            store.create()?;
        }
        let memory = memory::allocate(&config.memory, layout)?;
        let (kernel, uefi) = match load {
            LoadPlan::Linux(kernel) => (Some(kernel), None),
            LoadPlan::PcUefi(mut uefi) => {
                uefi.session.store();
                (None, Some(uefi))
            }
        };
        // Both spend their time in the host's kernel: one gets pages, the other everything else.
        let (loaded, parts) = std::thread::scope(|scope| {
            let kernel = match start {
                Start::Boot(_) => kernel.as_ref(),
                Start::Restore(_) => None,
            };
            let memory = &memory;
            let loading = scope.spawn(move || kernel.map(|kernel| kernel.load(memory)).transpose());
            let parts = Parts::new(
                hypervisor,
                config,
                &topology,
                memory,
                uefi.map(|uefi| (*uefi, store.as_ref())),
                ends.console_output,
                &ends.control,
            );
            let loaded = match loading.join() {
                Ok(loaded) => loaded,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            (loaded, parts)
        });
        // The user can correct a wrong file, so its error comes first.
        let loaded = loaded?;
        let parts = parts?;
        tracing::debug!("the machine is built");
        let guest = MachineGuest {
            memory,
            kernel,
            loaded,
            session: parts.session,
            serial: parts.serial,
        };
        let mut machine = Machine {
            lifecycle: Lifecycle::new(parts.units, parts.vps, guest, ends.on_reset, ends.events),
            chipset: parts.chipset,
            pm: parts.pm,
        };
        machine.enter(start)?;
        Ok(machine)
    }
}

/// The partition and what is around it.
struct Parts {
    units: StateUnits,
    vps: VpSet,
    chipset: Arc<Chipset>,
    pm: PmControl,
    serial: SerialPorts,
    session: Option<SharedSession>,
}

impl Parts {
    fn new(
        hypervisor: &dyn Hypervisor,
        config: &VmConfig,
        topology: &Topology,
        memory: &GuestMemory,
        uefi: Option<(UefiPlan, Option<&PlannedStore>)>,
        console_output: Box<dyn Write + Send>,
        control: &RunControl,
    ) -> Result<Self, MachineError> {
        let processor = ProcessorFeatures::default();
        let NewPartition { partition, vps } = hypervisor.new_partition(PartitionConfig {
            topology,
            memory,
            irqchip: config.irqchip,
            processor: processor.clone(),
        })?;
        let vps = BindingVps::new(vps, control.clone())?;
        let clock = VmClock::new();
        let serial = SerialPorts::new(&config.com_ports, config.debugcon.as_ref(), console_output)?;
        let Devices {
            chipset,
            pm,
            ioapic,
            session,
        } = devices::build(DeviceParts {
            config,
            partition: &partition,
            clock: &clock,
            power: &control.power_sink(),
            memory,
            serial: &serial,
            uefi,
        })?;
        let chipset = Arc::new(chipset);
        let bus: Arc<dyn IoBus> =
            Arc::new(MachineBus::new(chipset.clone(), ioapic, processor.clone()));
        let vps = vps.finish(&bus)?;

        // Start order: time, what VPs share, devices, VPs. A device that drives an interrupt line when it is
        // restored finds the interrupt controllers restored.
        let mut units = StateUnits::builder();
        units.add("vmtime", ClockUnit(clock));
        units
            .add("partition", PartitionUnit(partition))
            .depends_on("vmtime");
        let mut before_vps = vec!["partition".to_owned()];
        for enlightenment in processor.enlightenments {
            let name = enlightenment.name();
            units.add(name, EnlightenmentUnit(enlightenment));
            before_vps.push(name.to_owned());
        }
        for (name, device) in chipset.devices() {
            units.add(name, DeviceUnit(device)).depends_on("partition");
            before_vps.push(name.to_owned());
        }
        if let Some(session) = &session {
            units.add(SESSION_UNIT, session.clone());
            before_vps.push(SESSION_UNIT.to_owned());
        }
        before_vps.into_iter().fold(
            units.add("vps", VpsUnit(vps.clone())),
            state_unit::UnitBuilder::depends_on,
        );
        Ok(Self {
            units: units.build()?,
            vps,
            chipset,
            pm,
            serial,
            session,
        })
    }
}
