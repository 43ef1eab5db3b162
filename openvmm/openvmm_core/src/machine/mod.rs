//! The machine: everything a configuration names, put together.

mod acpi;
mod devices;
mod error;
mod firmware;
mod inventory;
mod memory;
mod platform;
mod view;
mod vmgs_store;

pub use error::MachineError;
pub use firmware::BootError;
pub use firmware::FirmwareDeviceError;
pub use firmware::RestartError;
pub use firmware::UefiError;
pub(crate) use platform::LOW_RAM_END;
pub use vmgs_store::VmgsError;

use chipset::ioapic::IoApicPins;
use chipset::pm::PmControl;
use chipset_device::PowerEvent;
use chipset_device::VpCount;
use devices::DevicePlan;
use firmware::Boot;
use firmware::Entry;
use firmware::FirmwareDevices;
use firmware::HibernationSink;
use firmware::PreservedFirmware;
use firmware::UefiParts;
use guest_memory::GuestMemory;
use machine_parts::BindingVps;
use machine_parts::ClockUnit;
use machine_parts::DeviceUnit;
use machine_parts::MachineBus;
use machine_parts::PartitionUnit;
use machine_parts::PowerLatch;
use machine_parts::VpGate;
use machine_parts::VpReport;
use machine_parts::VpSet;
use machine_parts::VpsUnit;
use openvmm_defs::config::VmConfig;
use serde_json::Value;
use serde_json::json;
use serial_16550::SerialConnections;
use serial_16550::SerialPort;
use sleep_port::AnnouncementSink;
use sleep_port::SleepAnnouncement;
use state_unit::StateUnits;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use virt::Hypervisor;
use virt::IoBus;
use virt::NewPartition;
use virt::PartitionConfig;
use virt::Topology;
use virt::VpIndex;
use vmotherboard::Chipset;
use vmtime::VmClock;

/// What the machine needs of its owner.
pub(crate) struct MachineOptions {
    /// Takes the output of the serial port that is the console.
    pub console_output: Box<dyn Write + Send>,
    /// Hears of the guest's power requests, with the VPs' gate closed.
    pub on_power: Box<dyn Fn(PowerEvent) + Send + Sync>,
    /// Hears of the guest's going to sleep and waking.
    pub on_sleep: Box<dyn Fn(SleepAnnouncement) + Send + Sync>,
    /// Hears of what happens to the firmware that is kept for a hibernated guest.
    pub on_hibernation: HibernationSink,
    /// Hears of what happens to VPs.
    pub on_vp: Box<dyn Fn(VpReport) + Send + Sync>,
}

/// A machine.
pub(crate) struct Machine {
    parts: Parts,
    memory: GuestMemory,
    boot: Boot,
    address_bits: u8,
}

/// What is in a machine besides its memory.
struct Parts {
    units: StateUnits,
    vps: VpSet,
    chipset: Arc<Chipset>,
    power: PowerLatch,
    pm: PmControl,
    serial: Arc<SerialConnections>,
}

impl Parts {
    /// Makes the partition, and puts the devices around it.
    fn new(
        hypervisor: &dyn Hypervisor,
        config: &VmConfig,
        topology: &Topology,
        memory: &GuestMemory,
        devices: &DevicePlan,
        firmware: FirmwareDevices,
        options: MachineOptions,
    ) -> Result<Self, MachineError> {
        let NewPartition { partition, vps } = hypervisor.new_partition(PartitionConfig {
            topology,
            memory,
            irqchip: config.irqchip,
            msr_intercepts: Vec::new(),
        })?;
        let gate = VpGate::default();
        let vps = BindingVps::new(vps, gate.clone(), options.on_vp)?;
        let clock = VmClock::new();
        let power = PowerLatch::default();
        let serial = Arc::new(SerialConnections::new(options.console_output));
        let mut services = devices::partition_services(&partition, config.irqchip);
        services.offer(VpCount(config.topology.processors));
        services.offer(memory.clone());
        services.offer(clock.clone());
        services.offer(power.sink(gate, options.on_power));
        services.offer(serial.clone());
        services.offer(AnnouncementSink::new(options.on_sleep));
        let chipset = devices.build(&mut services, &partition, firmware)?;
        let pm = services.get::<PmControl>()?.clone();
        // The hypervisor may have the I/O APIC instead.
        let ioapic = services.get::<IoApicPins>().ok().cloned();
        let chipset = Arc::new(chipset);
        let bus: Arc<dyn IoBus> = Arc::new(MachineBus::new(chipset.clone(), ioapic));
        let vps = vps.finish(&bus)?;

        // Start order: time, what VPs share, devices, VPs. A device that drives an interrupt line when it is
        // restored finds the interrupt controllers restored.
        let mut units = StateUnits::builder();
        units.add("vmtime", ClockUnit(clock));
        units
            .add("partition", PartitionUnit(partition))
            .depends_on("vmtime");
        let mut names = Vec::new();
        for (name, device) in chipset.devices() {
            names.push(name.to_owned());
            units.add(name, DeviceUnit(device)).depends_on("partition");
        }
        let vps_unit = units
            .add("vps", VpsUnit(vps.clone()))
            .depends_on("partition");
        names
            .into_iter()
            .fold(vps_unit, state_unit::UnitBuilder::depends_on);
        Ok(Self {
            units: units.build()?,
            vps,
            chipset,
            power,
            pm,
            serial,
        })
    }
}

impl Machine {
    /// Builds everything and loads what runs first. No VP runs yet.
    pub(crate) fn new(
        hypervisor: &dyn Hypervisor,
        config: &VmConfig,
        options: MachineOptions,
    ) -> Result<Self, MachineError> {
        let host = hypervisor.host_info()?;
        let topology = Topology::new(config.topology)?;
        let layout = memory::layout(&config.memory, host.address_bits)?;
        let tables = acpi::tables(config, &topology, &layout, host.address_bits)?;
        let plan = DevicePlan::new(config, &layout)?;
        let store = config.vmgs.as_deref().map(vmgs_store::open).transpose()?;
        let (mut boot, devices) = Boot::new(
            &config.firmware,
            &UefiParts {
                config,
                devices: &plan,
                topology: &topology,
                tables: &tables,
                layout: &layout,
                address_bits: host.address_bits,
                store: store.as_ref(),
                events: options.on_hibernation.clone(),
            },
        )?;
        let memory = memory::allocate(&config.memory, layout)?;
        // Both take their time in the host's kernel, one for pages and the other for everything else.
        let (entry, parts) = std::thread::scope(|scope| {
            let loading = scope.spawn(|| boot.load(&memory));
            let parts = Parts::new(
                hypervisor, config, &topology, &memory, &plan, devices, options,
            );
            let entry = match loading.join() {
                Ok(loaded) => loaded,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            (entry, parts)
        });
        // A wrong file is the user's to mend, so it comes first.
        let entry = entry?;
        let machine = Self {
            parts: parts?,
            memory,
            boot,
            address_bits: host.address_bits,
        };
        tracing::debug!("the first code is loaded and the machine is made");
        machine.enter(entry)?;
        Ok(machine)
    }

    /// The serial port that is the console.
    pub(crate) fn console(&self) -> Option<SerialPort> {
        self.parts.serial.console()
    }

    /// The pseudo-terminals made for serial ports.
    pub(crate) fn ptys(&self) -> Vec<(String, PathBuf)> {
        self.parts.serial.ptys()
    }

    /// Lets everything go on.
    pub(crate) fn start(&mut self) -> Result<(), MachineError> {
        self.parts.power.arm();
        if let Some(preserved) = self.boot.preserved() {
            preserved.run();
        }
        Ok(self.parts.units.start()?)
    }

    /// Stops everything, VPs first.
    pub(crate) fn stop(&mut self) {
        self.parts.units.stop();
    }

    /// Returns everything to power-on and loads what runs first. Stopped before and after.
    pub(crate) fn reset(&mut self) -> Result<(), MachineError> {
        self.parts.units.reset()?;
        let entry = self.boot.reload(&self.memory)?;
        self.enter(entry)
    }

    fn enter(&self, entry: Entry) -> Result<(), MachineError> {
        let state = match entry {
            Entry::Registers(state) => state,
            Entry::ResetVector => return Ok(()),
        };
        let low_mmio = self.memory.layout().low_mmio();
        let bits = self.address_bits;
        self.parts.vps.call(VpIndex::BSP, move |vp| {
            firmware::enter_linux(vp, &state, low_mmio, bits)
        })??;
        Ok(())
    }

    /// The firmware that is kept for a hibernated guest, if there is any firmware.
    pub(crate) fn preserved(&mut self) -> Option<&mut PreservedFirmware> {
        self.boot.preserved()
    }

    /// Presses the power button.
    pub(crate) fn press_power_button(&self) {
        self.parts.pm.press_power_button();
    }

    /// Writes out what serial ports still hold, for as long as that goes on.
    pub(crate) fn flush(&self) {
        self.parts.serial.flush();
    }

    /// Ends the VPs' threads, and writes out what serial ports still hold.
    pub(crate) fn tear_down(&mut self) {
        self.parts.vps.tear_down();
        self.flush();
    }

    /// The live tree of the machine's state.
    pub(crate) fn inspect(&mut self) -> Value {
        let layout = self.memory.layout();
        let ram: Vec<_> = layout.ram().iter().map(ToString::to_string).collect();
        let unclaimed = self.parts.chipset.unclaimed();
        json!({
            "memory": {
                "ram_bytes": layout.ram_size(),
                "ram": ram,
                "low_mmio": layout.low_mmio().to_string(),
            },
            "hibernation": self.boot.preserved().map(|preserved| preserved.inspect()),
            "units": self.parts.units.inspect(),
            "serial": self.parts.serial.inspect(),
            "unclaimed": {
                "port_reads": unclaimed.port_reads,
                "port_writes": unclaimed.port_writes,
                "mmio_reads": unclaimed.mmio_reads,
                "mmio_writes": unclaimed.mmio_writes,
            },
        })
    }
}
