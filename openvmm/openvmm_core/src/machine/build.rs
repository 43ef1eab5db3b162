//! Building a planned machine: guest memory, the partition, the devices around it, and the units they are started by.

use super::Machine;
use super::MachineError;
use super::clock_store;
use super::devices;
use super::devices::DevicePlan;
use super::firmware::BootError;
use super::firmware::HypervPlan;
use super::firmware::LoadedImage;
use super::firmware::SESSION_UNIT;
use super::firmware::SharedSession;
use super::firmware::UefiDevices;
use super::firmware::UefiPlan;
use super::generation::GenerationControl;
use super::guest::MachineGuest;
use super::media::Media;
use super::memory;
use super::plan::LoadPlan;
use super::plan::MachinePlan;
use super::plan::processor_features;
use super::vmgs_store::PlannedStore;
use chipset::ioapic::IoApicPins;
use chipset::pm::PmControl;
use chipset_device::Services;
use chipset_device::VpCount;
use disk_backend::AttachedDisks;
use firmware_uefi::FirmwareReport;
use firmware_uefi::FirmwareReportSink;
use flash::FlashControl;
use machine_parts::AfterGuest;
use machine_parts::BindingVps;
use machine_parts::ClockUnit;
use machine_parts::EnlightenmentUnit;
use machine_parts::Lifecycle;
use machine_parts::LifecycleEvent;
use machine_parts::MachineBus;
use machine_parts::PartitionUnit;
use machine_parts::RunControl;
use machine_parts::SerialUnit;
use machine_parts::VmgsUnit;
use machine_parts::VpSet;
use machine_parts::VpsUnit;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::Start;
use serial_16550::SerialConnections;
use sleep_port::AnnouncementSink;
use state_unit::StateUnits;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use virt::Hypervisor;
use virt::IoBus;
use virt::NewPartition;
use virt::PartitionConfig;
use vmgs_broker::VmgsClient;
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
    /// What the machine does when the guest has ended.
    pub after_guest: AfterGuest,
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
            host: _,
            topology,
            layout,
            devices,
            load,
            store,
        } = self;
        if let Some(store) = &store {
            store.create()?;
            if config.hibernation.enabled && !store.is_old_file() {
                store.reserve()?;
            }
        }
        let (image, session, firmware) = match load {
            LoadPlan::Image(image) => (Some(image), None, None),
            LoadPlan::PcUefi(uefi, image) => {
                let UefiPlan { session, devices } = *uefi;
                (image, Some(SharedSession::new(session)), Some(devices))
            }
            LoadPlan::HypervUefi(uefi) => {
                let HypervPlan { session, boot } = *uefi;
                let image = Box::new(LoadedImage::HypervUefi(boot));
                (Some(image), Some(SharedSession::new(session)), None)
            }
        };
        let memory = memory::allocate(&config.memory, start, layout)?;
        let serial = Arc::new(SerialConnections::new(ends.console_output));
        let mut services = Services::default();
        services.offer(memory.clone());
        services.offer(VpCount(config.topology.processors));
        services.offer(serial.clone());
        services.offer(AttachedDisks::default());
        services.offer(ends.control.power_sink());
        services.offer(ends.control);
        if let Some(client) = store.as_ref().and_then(PlannedStore::client) {
            services.offer(client.clone());
            services.offer(clock_store::battery(client.clone()));
        }
        services.offer(sleep_announcements(session.clone()));
        services.offer(firmware_reports(session.clone()));
        if let Some(session) = &session {
            services.offer(session.clone());
        }
        // Both spend their time in the host's kernel: one gets pages, the other everything else.
        let (loaded, parts) = std::thread::scope(|scope| {
            let image = match start {
                Start::Boot(_) => image.as_ref(),
                Start::Restore(_) => None,
            };
            let memory = &memory;
            let loading = scope.spawn(move || image.map(|image| image.load(memory)).transpose());
            let partition = PartitionConfig {
                topology: &topology,
                memory,
                irqchip: config.irqchip,
                processor: processor_features(config),
            };
            let parts = Parts::new(hypervisor, partition, &devices, firmware, services);
            let loaded = match loading.join() {
                Ok(loaded) => loaded,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            (loaded, parts)
        });
        // The user can correct a wrong file, so its error comes first.
        let loaded = loaded?;
        let Parts {
            units,
            vps,
            chipset,
            pm,
            generation,
            media,
        } = parts?;
        tracing::debug!("the machine is built");
        let guest = MachineGuest {
            memory,
            image,
            loaded,
            session: session.clone(),
            serial,
            media,
        };
        let mut machine = Machine {
            lifecycle: Lifecycle::new(units, vps, guest, ends.after_guest, ends.events),
            chipset,
            pm,
            generation,
            store: store.as_ref().map(PlannedStore::image),
            new_file: None,
        };
        machine.enter(start)?;
        if let Some(store) = &store {
            machine.new_file = Some(store.keep()?);
            if config.hibernation.enabled && store.is_old_file() {
                store.reserve()?;
            }
        }
        // Only now: a machine that cannot be built leaves the guest's hibernated session as it was. And what is said of the
        // store elsewhere, such as in its sequence note, is true from then on.
        if let Some(session) = &session {
            session
                .commit()
                .map_err(|refusal| BootError::Uefi(refusal.into()))?;
        }
        Ok(machine)
    }
}

/// Tells the firmware's session when the guest's ACPI code goes to sleep or wakes.
fn sleep_announcements(session: Option<SharedSession>) -> AnnouncementSink {
    AnnouncementSink::new(move |announcement| {
        if let Some(session) = &session {
            session.announced(announcement);
        }
    })
}

/// Tells the firmware's session when the firmware has handed over to an operating system.
fn firmware_reports(session: Option<SharedSession>) -> FirmwareReportSink {
    FirmwareReportSink::new(move |report| {
        // The device logs other reports.
        if let (FirmwareReport::RuntimeHandoff, Some(session)) = (report, &session) {
            session.handed_over();
        }
    })
}

/// The partition and what is around it.
struct Parts {
    units: StateUnits,
    vps: VpSet,
    chipset: Arc<Chipset>,
    pm: PmControl,
    generation: Option<GenerationControl>,
    media: Media,
}

impl Parts {
    fn new(
        hypervisor: &dyn Hypervisor,
        config: PartitionConfig<'_>,
        devices: &DevicePlan,
        firmware: Option<UefiDevices>,
        mut services: Services,
    ) -> Result<Self, MachineError> {
        let (irqchip, processor) = (config.irqchip, config.processor.clone());
        let NewPartition { partition, vps } = hypervisor.new_partition(config)?;
        let vps = BindingVps::new(vps, services.get::<RunControl>()?.clone())?;
        let clock = VmClock::new();
        services.offer(clock.clone());
        devices::offer_partition(&mut services, &partition, irqchip);
        let chipset = Arc::new(devices.build(&mut services, &partition, firmware)?);
        let pm = services.get::<PmControl>()?.clone();
        let generation = GenerationControl::find(&services);
        let media = Media {
            disks: services.get::<AttachedDisks>()?.clone(),
            variables: services.get::<FlashControl>().ok().cloned(),
        };
        // The hypervisor may have the I/O APIC instead.
        let ioapic = services.get::<IoApicPins>().ok().cloned();
        let bus = MachineBus::new(chipset.clone(), ioapic, processor.clone());
        let bus: Arc<dyn IoBus> = Arc::new(bus);
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
            units.add(name, device).depends_on("partition");
            before_vps.push(name.to_owned());
        }
        let serial = services.get::<Arc<SerialConnections>>()?.clone();
        units.add("serial", SerialUnit(serial));
        if let Ok(client) = services.get::<VmgsClient>() {
            units.add("vmgs", VmgsUnit(client.clone()));
        }
        if let Ok(session) = services.get::<SharedSession>() {
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
            generation,
            media,
        })
    }
}
