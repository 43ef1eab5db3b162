//! For tests: whole machines on a hypervisor whose guests are scripts.

use super::*;
use crate::handle::VmHandle;
use crate::launch::LaunchOptions;
use crate::launch::launch;
use chipset::DebugPortHandle;
use chipset_device::DeviceHandle;
use disk_spec::VirtioBlkHandle;
use firmware_hibernation::ConsumePolicy;
use machine_parts::AfterGuest;
use machine_parts::Change;
use machine_parts::HaltReason;
use machine_parts::LifecycleEvent;
use machine_parts::Report;
use machine_parts::RunControl;
use openvmm_defs::config::BootProtocol;
use openvmm_defs::config::HibernationConfig;
use openvmm_defs::config::HostPages;
use openvmm_defs::config::HypervUefi;
use openvmm_defs::config::HypervUefiSettings;
use openvmm_defs::config::LinuxDirect;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::MachineProfile;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::PcUefi;
use openvmm_defs::config::Population;
use openvmm_defs::config::UefiDeviceConfig;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::config::VmConfig;
use openvmm_defs::devices::ChipsetDeviceConfig;
use openvmm_defs::devices::PciDeviceConfig;
use openvmm_defs::devices::PciSlot;
use openvmm_defs::start::BootOptions;
use openvmm_defs::start::StartOptions;
use ovmf_image::constructed;
use parking_lot::Mutex;
use serial_16550::COM_PORTS;
use serial_16550::Serial16550Handle;
use serial_16550::SerialEnd;
use state_unit::SavedUnits;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::mpsc;
use std::time::Duration;
use virt::IrqchipMode;
use virt::TopologyConfig;
use virt_fake::FakeHypervisor;
use virt_fake::Step;
use virtio_rng::VirtioRngHandle;
use vm_resource::Resource;

pub(crate) const RAM: u64 = 64 << 20;

pub(crate) const ACCESS: vmgs::StoreAccess = vmgs::StoreAccess::ReadWrite;

/// Firmware without code. It takes a while to compress.
pub(crate) static CODE: LazyLock<Vec<u8>> =
    LazyLock::new(|| constructed::code(4 << 20, constructed::Smm::Without));

/// A bzImage with nothing to run, entered by the 64-bit boot protocol.
pub(crate) fn kernel() -> Vec<u8> {
    let mut image = vec![0_u8; 1024 + 4096];
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0x1f1, &[1]); // setup_sects
    put(0x1f4, &(4096_u32 / 16).to_le_bytes()); // syssize
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes()); // version
    put(0x211, &[1]); // loadflags
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    put(0x230, &0x20_0000_u32.to_le_bytes()); // kernel_alignment
    put(0x234, &[1]); // relocatable_kernel
    put(0x236, &1_u16.to_le_bytes()); // xloadflags
    put(0x238, &2047_u32.to_le_bytes()); // cmdline_size
    put(0x258, &0x100_0000_u64.to_le_bytes()); // pref_address
    put(0x260, &0x100_0000_u32.to_le_bytes()); // init_size
    image
}

pub(crate) fn serial(index: usize, end: SerialEnd) -> Serial16550Handle {
    let (base, irq) = COM_PORTS[index];
    Serial16550Handle {
        base,
        irq,
        end,
        input: None,
    }
}

pub(crate) fn pci<H: DeviceHandle>(name: &str, device: u8, handle: &H) -> PciDeviceConfig {
    PciDeviceConfig {
        name: name.into(),
        slot: PciSlot {
            device,
            function: 0,
        },
        resource: Resource::new(handle),
    }
}

/// The files of a VM.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        std::fs::write(files.path("kernel"), kernel()).unwrap();
        std::fs::write(files.path("OVMF_CODE.fd"), &*CODE).unwrap();
        let variables = constructed::variables(0x84000);
        std::fs::write(files.path("OVMF_VARS.fd"), variables).unwrap();
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn linux(&self) -> LoadMode {
        LoadMode::LinuxDirect(LinuxDirect {
            kernel: self.path("kernel"),
            initrd: None,
            cmdline: "console=ttyS0".into(),
            protocol: BootProtocol::Auto,
        })
    }

    pub(crate) fn uefi(&self) -> LoadMode {
        LoadMode::PcUefi(PcUefi {
            code: self.path("OVMF_CODE.fd"),
            variables: UefiVariables::Vmgs,
            kernel: None,
        })
    }

    pub(crate) fn hyperv(&self) -> LoadMode {
        let firmware = self.path("MSVM.fd");
        if !firmware.exists() {
            std::fs::write(&firmware, constructed::msvm()).unwrap();
        }
        LoadMode::HypervUefi(HypervUefi {
            firmware,
            settings: HypervUefiSettings::default(),
            device: UefiDeviceConfig::default(),
        })
    }

    pub(crate) fn config(&self, load_mode: LoadMode, irqchip: IrqchipMode) -> VmConfig {
        let vmgs = (!matches!(load_mode, LoadMode::LinuxDirect(_))).then(|| self.path("vm.vmgs"));
        let mut chipset_devices = vec![
            ChipsetDeviceConfig::new("com1", &serial(0, SerialEnd::Console)),
            ChipsetDeviceConfig::new("com2", &serial(1, SerialEnd::File(self.path("com2")))),
        ];
        // In a generation-2 VM, its port is the power-management block's.
        if load_mode.profile() != MachineProfile::HypervUefi {
            chipset_devices.push(ChipsetDeviceConfig::new(
                "debugcon",
                &DebugPortHandle {
                    port: 0x402,
                    end: SerialEnd::File(self.path("debugcon")),
                },
            ));
        }
        VmConfig {
            topology: TopologyConfig {
                processors: 2,
                vps_per_socket: None,
                threads_per_core: 1,
            },
            irqchip,
            memory: MemoryConfig {
                size: RAM,
                file: Some(self.path("ram")),
                pages: HostPages::Default,
                population: Population::OnDemand,
                sharing: None,
            },
            load_mode,
            chipset_devices,
            hibernation: HibernationConfig {
                enabled: true,
                consume: ConsumePolicy::Handoff,
            },
            pci_devices: vec![
                pci(
                    "disk0",
                    1,
                    &VirtioBlkHandle {
                        disk: "mem:1M".parse().unwrap(),
                    },
                ),
                pci("rng0", 2, &VirtioRngHandle {}),
            ],
            vmgs,
            vmgs_memory: None,
            nested: false,
            uuid: [7; 16],
        }
    }
}

/// A machine on a fake hypervisor, and what happens to it.
pub(crate) struct Bench {
    pub(crate) machine: Machine,
    pub(crate) hypervisor: FakeHypervisor,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) events: Arc<Mutex<Vec<String>>>,
    /// The error that the machine halted for.
    pub(crate) halted: Arc<Mutex<Option<String>>>,
}

impl Bench {
    pub(crate) fn new(config: &VmConfig, start: &Start) -> Result<Self, MachineError> {
        Self::build(
            FakeHypervisor::new(),
            config,
            start,
            None,
            AfterGuest::default(),
        )
    }

    /// With the key of the VMGS store.
    pub(crate) fn with_key(
        config: &VmConfig,
        start: &Start,
        key: Option<vmgs::Key>,
    ) -> Result<Self, MachineError> {
        Self::build(
            FakeHypervisor::new(),
            config,
            start,
            key,
            AfterGuest::default(),
        )
    }

    /// On a hypervisor that was prepared.
    pub(crate) fn on(
        hypervisor: FakeHypervisor,
        config: &VmConfig,
        start: &Start,
    ) -> Result<Self, MachineError> {
        Self::build(hypervisor, config, start, None, AfterGuest::default())
    }

    /// A new machine that does this when its guest has ended.
    pub(crate) fn ending(config: &VmConfig, after_guest: AfterGuest) -> Self {
        let start = Start::default();
        Self::build(FakeHypervisor::new(), config, &start, None, after_guest).unwrap()
    }

    fn build(
        hypervisor: FakeHypervisor,
        config: &VmConfig,
        start: &Start,
        key: Option<vmgs::Key>,
        after_guest: AfterGuest,
    ) -> Result<Self, MachineError> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let (hibernation, lifecycle) = (events.clone(), events.clone());
        let halted = Arc::new(Mutex::new(None));
        let halted_for = halted.clone();
        let on_hibernation: HibernationSink = Arc::new(move |event| {
            let event = serde_json::to_value(event).unwrap();
            hibernation
                .lock()
                .push(event["event"].as_str().unwrap().to_owned());
        });
        let plan = MachinePlan::new(&hypervisor, config, start, key, &on_hibernation)?;
        let (send, reports) = mpsc::channel();
        let ends = HostEnds {
            console_output: Box::new(std::io::sink()),
            control: RunControl::new(move |report| drop(send.send(report))),
            events: Box::new(move |_, event| {
                if let LifecycleEvent::Halted(HaltReason::Error(error)) = &event {
                    *halted_for.lock() = Some(error.clone());
                }
                lifecycle.lock().push(match event {
                    LifecycleEvent::Halted(reason) => format!("halted {}", reason.name()),
                    event => format!("{event:?}"),
                });
            }),
            after_guest,
        };
        let mut machine = plan.build(&hypervisor, config, start, ends)?;
        machine.started();
        Ok(Self {
            machine,
            hypervisor,
            reports,
            events,
            halted,
        })
    }

    pub(crate) fn boot(config: &VmConfig) -> Self {
        Self::new(config, &Start::Boot(BootOptions::default())).unwrap()
    }

    /// Runs what the boot processor is to do, and pauses.
    pub(crate) fn run(&mut self, steps: Vec<Step>) {
        self.hypervisor.push(0, steps);
        self.machine.lifecycle.resume().unwrap();
        let hypervisor = self.hypervisor.clone();
        while hypervisor.steps_left(0) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.machine.lifecycle.pause().unwrap(), Change::Changed);
        // What is on its way to the host is not the same a moment later.
        self.machine.lifecycle.guest().serial.flush();
    }

    /// Waits for a report of a power request, and acts on the reports up to there.
    pub(crate) fn power_request(&mut self) {
        loop {
            let report = self.reports.recv_timeout(Duration::from_secs(20)).unwrap();
            let done = matches!(report.kind, machine_parts::ReportKind::Power(_));
            self.machine.lifecycle.report(report);
            if done {
                return;
            }
        }
    }

    pub(crate) fn save(&mut self) -> SavedUnits {
        self.machine.lifecycle.save().unwrap()
    }

    /// The sequence number of the store: the number of its changes.
    pub(crate) fn machine_sequence(&self) -> u64 {
        let saved = self.machine.lifecycle.inspect();
        saved["vmgs"]["sequence"].as_u64().unwrap()
    }

    /// Ends the machine, and waits until its VMGS file is closed, by a thread of its own.
    pub(crate) fn end(mut self, config: &VmConfig) {
        self.machine.stop();
        drop(self);
        wait_for_store(config);
    }

    pub(crate) fn take_events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock())
    }
}

/// Waits until the VMGS file is closed, by a thread of its own.
pub(crate) fn wait_for_store(config: &VmConfig) {
    let Some(path) = &config.vmgs else { return };
    while vmgs::FileDevice::open(path, vmgs::Container::Detect, ACCESS).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn out(port: u16, data: &[u8]) -> Step {
    Step::WritePort {
        port,
        data: data.to_vec(),
    }
}

/// A guest that leaves no device as it was: serial ports, clock, timers, configuration space, MSI-X and flash.
pub(crate) fn busy_guest() -> Vec<Step> {
    let mut steps = vec![
        out(0x3f9, &[5]),    // COM1: interrupts
        out(0x3fb, &[0x83]), // COM1: divisor latch
        out(0x3f8, b"x"),
        out(0x3fb, &[3]),
        out(0x2f8, b"y"),   // COM2: a byte of output
        out(0x70, &[0x0b]), // RTC: register B
        out(0x71, &[0x42]),
        out(0x602, &0x0120_u16.to_le_bytes()), // PM1 enable
        out(0x64, &[0x60]),                    // i8042: command byte
        out(0x60, &[0x61]),
        out(0x402, b"d"),
    ];
    // BARs, memory and bus mastering of the functions at devices 1 and 2.
    for (device, base) in [(1_u32, 0xc000_0000_u32), (2, 0xc010_0000)] {
        let config = |register: u32, value: u32| {
            let address = 1 << 31 | device << 11 | register;
            [
                out(0xcf8, &address.to_le_bytes()),
                out(0xcfc, &value.to_le_bytes()),
            ]
        };
        steps.extend(config(0x10, base));
        steps.extend(config(0x04, 0x0006));
        steps.extend(config(0x3c, 0x0b));
        // The virtio device status: acknowledge and driver.
        steps.push(Step::WriteMemory {
            gpa: u64::from(base) + 20,
            data: vec![3],
        });
    }
    steps.push(Step::WriteMemory {
        gpa: 0x10_0000,
        data: b"guest memory".to_vec(),
    });
    steps
}

pub(crate) fn hibernate(bench: &mut Bench) {
    sleep(bench, 0x604);
}

/// The guest of a generation-2 VM hibernates.
pub(crate) fn hibernate_generation_2(bench: &mut Bench) {
    sleep(bench, 0x404);
}

/// The guest enters S4 by the PM1 control register at `port`.
fn sleep(bench: &mut Bench, port: u16) {
    // S4 with sleep enable.
    bench
        .hypervisor
        .push(0, [out(port, &0x2400_u16.to_le_bytes())]);
    bench.machine.lifecycle.resume().unwrap();
    bench.power_request();
}

/// A machine whose guest has hibernated.
pub(crate) fn hibernated(files: &Files) -> VmConfig {
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    bench.end(&config);
    config
}

pub(crate) fn each_profile(test: impl Fn(&Files, &VmConfig)) {
    for irqchip in [IrqchipMode::Kernel, IrqchipMode::Split] {
        for uefi in [false, true] {
            let files = Files::new();
            let load_mode = match uefi {
                true => files.uefi(),
                false => files.linux(),
            };
            test(&files, &files.config(load_mode, irqchip));
        }
    }
}

/// Starts the VM with a worker.
pub(crate) fn launched(config: &VmConfig, hypervisor: &FakeHypervisor) -> VmHandle {
    let options = LaunchOptions {
        console_output: Box::new(std::io::sink()),
        events: Arc::new(|_| {}),
        vmgs_key: None,
    };
    launch(hypervisor, config, &StartOptions::default(), options).unwrap()
}

/// Fails if `end` takes too long.
pub(crate) fn in_time(end: impl FnOnce() + Send + 'static) {
    let (send, done) = mpsc::channel();
    std::thread::spawn(move || {
        end();
        let _ = send.send(());
    });
    assert_eq!(done.recv_timeout(Duration::from_secs(30)), Ok(()));
}
