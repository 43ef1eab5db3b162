//! Whole machines on a hypervisor whose guests are scripts.

use super::*;
use crate::handle::VmHandle;
use crate::launch::LaunchOptions;
use crate::launch::launch;
use chipset::DebugPortHandle;
use chipset_device::DeviceHandle;
use disk_spec::VirtioBlkHandle;
use firmware_hibernation::ConsumePolicy;
use firmware_hibernation::Override;
use machine_parts::Change;
use machine_parts::LifecycleEvent;
use machine_parts::MachineState;
use machine_parts::OnReset;
use machine_parts::Report;
use machine_parts::RunControl;
use mesh::saved_state::SavedState;
use openvmm_defs::config::BootProtocol;
use openvmm_defs::config::HibernationConfig;
use openvmm_defs::config::HostPages;
use openvmm_defs::config::LinuxDirect;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::PcUefi;
use openvmm_defs::config::Population;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::config::VmConfig;
use openvmm_defs::devices::ChipsetDeviceConfig;
use openvmm_defs::devices::PciDeviceConfig;
use openvmm_defs::devices::PciSlot;
use openvmm_defs::request::VmRequest;
use openvmm_defs::start::BootOptions;
use openvmm_defs::start::StartOptions;
use ovmf_image::constructed;
use parking_lot::Mutex;
use serial_16550::COM_PORTS;
use serial_16550::Serial16550Handle;
use serial_16550::SerialEnd;
use state_unit::SavedUnit;
use state_unit::SavedUnits;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::mpsc;
use std::time::Duration;
use virt::Hypervisor as _;
use virt::IrqchipMode;
use virt::TopologyConfig;
use virt_fake::FakeHypervisor;
use virt_fake::Step;
use virtio_rng::VirtioRngHandle;
use vm_resource::Resource;

const RAM: u64 = 64 << 20;
const ROUNDS: usize = 6;
const ACCESS: vmgs::StoreAccess = vmgs::StoreAccess::ReadWrite;

/// Firmware without code. It takes a while to compress.
static CODE: LazyLock<Vec<u8>> =
    LazyLock::new(|| constructed::code(4 << 20, constructed::Smm::Without));

/// A bzImage with nothing to run, entered by the 64-bit boot protocol.
fn kernel() -> Vec<u8> {
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

fn serial(index: usize, end: SerialEnd) -> Serial16550Handle {
    let (base, irq) = COM_PORTS[index];
    Serial16550Handle { base, irq, end }
}

fn pci<H: DeviceHandle>(name: &str, device: u8, handle: &H) -> PciDeviceConfig {
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
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        std::fs::write(files.path("kernel"), kernel()).unwrap();
        std::fs::write(files.path("OVMF_CODE.fd"), &*CODE).unwrap();
        let variables = constructed::variables(0x84000);
        std::fs::write(files.path("OVMF_VARS.fd"), variables).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn linux(&self) -> LoadMode {
        LoadMode::LinuxDirect(LinuxDirect {
            kernel: self.path("kernel"),
            initrd: None,
            cmdline: "console=ttyS0".into(),
            protocol: BootProtocol::Auto,
        })
    }

    fn uefi(&self) -> LoadMode {
        LoadMode::PcUefi(PcUefi {
            code: self.path("OVMF_CODE.fd"),
            variables: UefiVariables::Vmgs,
            kernel: None,
        })
    }

    fn config(&self, load_mode: LoadMode, irqchip: IrqchipMode) -> VmConfig {
        let vmgs = matches!(load_mode, LoadMode::PcUefi(_)).then(|| self.path("vm.vmgs"));
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
            },
            load_mode,
            chipset_devices: vec![
                ChipsetDeviceConfig::new("com1", &serial(0, SerialEnd::Console)),
                ChipsetDeviceConfig::new("com2", &serial(1, SerialEnd::File(self.path("com2")))),
                ChipsetDeviceConfig::new(
                    "debugcon",
                    &DebugPortHandle {
                        port: 0x402,
                        end: SerialEnd::File(self.path("debugcon")),
                    },
                ),
            ],
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
            uuid: [7; 16],
        }
    }
}

/// A machine on a fake hypervisor, and what happens to it.
struct Bench {
    machine: Machine,
    hypervisor: FakeHypervisor,
    reports: mpsc::Receiver<Report>,
    events: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new(config: &VmConfig, start: &Start) -> Result<Self, MachineError> {
        let hypervisor = FakeHypervisor::new();
        let events = Arc::new(Mutex::new(Vec::new()));
        let (hibernation, lifecycle) = (events.clone(), events.clone());
        let plan = MachinePlan::new(
            &hypervisor.host_info()?,
            config,
            start,
            Arc::new(move |event| {
                let event = serde_json::to_value(event).unwrap();
                hibernation
                    .lock()
                    .push(event["event"].as_str().unwrap().to_owned());
            }),
        )?;
        let (send, reports) = mpsc::channel();
        let ends = HostEnds {
            console_output: Box::new(std::io::sink()),
            control: RunControl::new(move |report| drop(send.send(report))),
            events: Box::new(move |_, event| {
                lifecycle.lock().push(match event {
                    LifecycleEvent::Halted(reason) => format!("halted {}", reason.name()),
                    event => format!("{event:?}"),
                });
            }),
            on_reset: OnReset::Restart,
        };
        let machine = plan.build(&hypervisor, config, start, ends)?;
        Ok(Self {
            machine,
            hypervisor,
            reports,
            events,
        })
    }

    fn boot(config: &VmConfig) -> Self {
        Self::new(config, &Start::Boot(BootOptions::default())).unwrap()
    }

    /// Runs what the boot processor is to do, and pauses.
    fn run(&mut self, steps: Vec<Step>) {
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
    fn power_request(&mut self) {
        loop {
            let report = self.reports.recv_timeout(Duration::from_secs(20)).unwrap();
            let done = matches!(report.kind, machine_parts::ReportKind::Power(_));
            self.machine.lifecycle.report(report);
            if done {
                return;
            }
        }
    }

    fn save(&mut self) -> SavedUnits {
        self.machine.lifecycle.save().unwrap()
    }

    /// Ends the machine, and waits until its VMGS file is closed, by a thread of its own.
    fn end(mut self, config: &VmConfig) {
        self.machine.stop();
        drop(self);
        let Some(path) = &config.vmgs else { return };
        while vmgs::FileDevice::open(path, vmgs::Container::Detect, ACCESS).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn take_events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock())
    }
}

fn out(port: u16, data: &[u8]) -> Step {
    Step::WritePort {
        port,
        data: data.to_vec(),
    }
}

/// A guest that leaves no device as it was: serial ports, clock, timers, configuration space, MSI-X and flash.
fn busy_guest() -> Vec<Step> {
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

fn hibernate(bench: &mut Bench) {
    // S4 with sleep enable.
    bench
        .hypervisor
        .push(0, [out(0x604, &0x2400_u16.to_le_bytes())]);
    bench.machine.lifecycle.resume().unwrap();
    bench.power_request();
}

fn each_profile(test: impl Fn(&Files, &VmConfig)) {
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

#[test]
fn each_profile_is_saved_and_restored() {
    each_profile(|_, config| {
        let mut first = Bench::boot(config);
        let fresh = first.save();
        first.run(busy_guest());
        first
            .hypervisor
            .change_vp(1, |vp| vp.registers.rax = 0x1234);
        let saved = first.save();
        let changed = |name: &str| saved.get(name) != fresh.get(name);
        for unit in ["com1", "rtc", "pm", "i8042", "disk0", "rng0", "vps"] {
            assert!(changed(unit), "{unit} is as at power-on");
        }
        first.end(config);

        let bytes = saved.encode();
        let start = Start::Restore(SavedUnits::decode(&bytes).unwrap());
        let mut second = Bench::new(config, &start).unwrap();
        let restored = second.save();
        for (before, after) in saved.units().iter().zip(restored.units()) {
            assert_eq!(before, after, "unit {}", before.name);
        }
        assert_eq!(saved, restored);
        assert_eq!(second.hypervisor.vp_state(1).registers.rax, 0x1234);

        // The restored machine runs, and a reset of it is a reset.
        second.run(vec![out(0x3f8, b"z")]);
        second.machine.lifecycle.reset().unwrap();
        let reset = second.save();
        for unit in ["com1", "pm", "disk0", "rng0"] {
            assert_eq!(reset.get(unit), fresh.get(unit), "{unit}");
        }
        second.machine.stop();
    });
}

#[test]
fn a_missing_unit_refuses_the_restore() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let saved = Bench::boot(&config).save();
    let mut other = config.clone();
    other.pci_devices.pop();
    let error = Bench::new(&other, &Start::Restore(saved)).err().unwrap();
    let text = error_chain::Chain(&error).to_string();
    assert!(text.contains("rng0"), "{text}");
}

#[test]
fn a_machine_is_not_restored_beside_a_changed_store() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    hibernate(&mut bench);
    bench.end(&config);
    let error = Bench::new(&config, &Start::Restore(saved)).err().unwrap();
    let text = error_chain::Chain(&error).to_string();
    assert!(
        text.contains("vmgs") && text.contains("was changed"),
        "{text}"
    );
}

#[test]
fn a_guest_resets_and_powers_off() {
    each_profile(|_, config| {
        let mut bench = Bench::boot(config);
        bench.take_events();
        bench.hypervisor.push(0, [out(0xcf9, &[6])]);
        bench.machine.lifecycle.resume().unwrap();
        bench.power_request();
        assert_eq!(bench.machine.lifecycle.state(), MachineState::Running);
        // S5 with sleep enable.
        bench
            .hypervisor
            .push(0, [out(0x604, &0x2000_u16.to_le_bytes())]);
        bench.power_request();
        assert_eq!(bench.machine.lifecycle.state(), MachineState::Halted);
        let events = bench.take_events();
        assert_eq!(events.first().unwrap(), "Started");
        assert!(events.contains(&"Reset".to_owned()), "{events:?}");
        assert_eq!(events.last().unwrap(), "halted power_off");
        bench.machine.stop();
    });
}

#[test]
fn a_plan_that_fails_creates_no_store() {
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    if let LoadMode::PcUefi(uefi) = &mut config.load_mode {
        uefi.code = files.path("kernel");
    }
    assert!(Bench::new(&config, &Start::default()).is_err());
    assert!(!Path::new(&files.path("vm.vmgs")).exists());
}

#[test]
fn an_empty_store_file_is_formatted_after_the_plan() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let store = files.path("vm.vmgs");
    let file = std::fs::File::create(&store).unwrap();
    file.set_len(64 << 20).unwrap();
    let mut broken = config.clone();
    if let LoadMode::PcUefi(uefi) = &mut broken.load_mode {
        uefi.code = files.path("kernel");
    }
    assert!(Bench::new(&broken, &Start::default()).is_err());
    assert!(std::fs::read(&store).unwrap().iter().all(|&byte| byte == 0));
    let bench = Bench::boot(&config);
    assert!(bench.take_events().contains(&"captured".to_owned()));
}

#[test]
fn a_stop_keeps_the_token_and_says_so() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    let events = bench.take_events();
    assert_eq!(events.last().unwrap(), "halted hibernate", "{events:?}");
    bench.end(&config);

    let mut bench = Bench::boot(&config);
    bench.machine.lifecycle.resume().unwrap();
    bench.machine.stop();
    let events = bench.take_events();
    assert!(events.contains(&"restored".to_owned()), "{events:?}");
    assert!(events.contains(&"token_kept".to_owned()), "{events:?}");
}

#[test]
fn a_machine_that_cannot_be_built_keeps_the_hibernated_session() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    bench.end(&config);

    let mut broken = config.clone();
    broken.pci_devices.push(pci(
        "disk1",
        3,
        &VirtioBlkHandle {
            disk: format!("file:{}", files.path("absent").display())
                .parse()
                .unwrap(),
        },
    ));
    let discard = Start::Boot(BootOptions {
        hibernation_override: Some(Override::Discard),
    });
    let error = Bench::new(&broken, &discard).err().unwrap();
    assert!(matches!(error, MachineError::Device(_)), "{error}");
    while vmgs::FileDevice::open(&files.path("vm.vmgs"), vmgs::Container::Detect, ACCESS).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }

    let bench = Bench::boot(&config);
    let events = bench.take_events();
    assert!(events.contains(&"restored".to_owned()), "{events:?}");
}

/// The note beside the store says that the guest hibernated, so a cold boot would corrupt its disks.
#[test]
fn a_store_that_is_gone_since_the_guest_hibernated_refuses_the_start() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    bench.end(&config);
    let store = files.path("vm.vmgs");
    // Noted although the store was new when the guest started.
    assert!(files.path("vm.vmgs.seen").exists());
    std::fs::remove_file(&store).unwrap();
    let refused = || {
        let error = Bench::new(&config, &Start::default()).err().unwrap();
        assert!(error.is_refused_resume(), "{error}");
    };
    refused();
    assert!(!store.exists());
    let file = std::fs::File::create(&store).unwrap();
    file.set_len(64 << 20).unwrap();
    refused();
    let discard = Start::Boot(BootOptions {
        hibernation_override: Some(Override::Discard),
    });
    let bench = Bench::new(&config, &discard).unwrap();
    let events = bench.take_events();
    assert!(events.contains(&"captured".to_owned()), "{events:?}");
}

/// The encoding of [`SavedUnits`], which only units make.
#[derive(minicbor::Encode)]
#[cbor(map)]
struct Units {
    #[n(1)]
    units: Vec<SavedUnit>,
}

/// Replaces the state of one unit.
fn with_unit(saved: &SavedUnits, name: &str, state: Vec<u8>) -> Start {
    let mut units = saved.units().to_vec();
    let unit = units.iter_mut().find(|unit| unit.name == name).unwrap();
    unit.state = SavedState::from_bytes(state);
    let bytes = mesh::payload::encode(&Units { units });
    Start::Restore(SavedUnits::decode(&bytes).unwrap())
}

/// The state of the unit `firmware`.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Firmware {
    #[cbor(n(0), with = "minicbor::bytes")]
    code: Vec<u8>,
    #[n(1)]
    files: BTreeMap<String, Vec<u8>>,
    #[n(2)]
    hibernation: SavedState,
    #[n(3)]
    fresh: bool,
}

#[test]
fn impossible_saved_firmware_is_refused() {
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    config.memory.file = None;
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let state = saved.get(firmware::SESSION_UNIT).unwrap();
    let code = |len: usize| {
        let mut code = vec![0xff; len];
        let end = len.min(CODE.len());
        code[len - end..].copy_from_slice(&CODE[CODE.len() - end..]);
        code
    };
    let refused = |change: &dyn Fn(&mut Firmware)| {
        let mut firmware: Firmware = state.decode().unwrap();
        change(&mut firmware);
        let bytes = mesh::payload::encode(&firmware);
        let start = with_unit(&saved, firmware::SESSION_UNIT, bytes);
        let error = Bench::new(&config, &start).err().unwrap();
        assert!(!error_chain::Chain(&error).to_string().is_empty());
    };
    for len in [0, 1, 15, 16, 4095, 4096, CODE.len() - 1, CODE.len() + 1] {
        refused(&|firmware| firmware.code = code(len));
    }
    for len in [12 << 20, 16 << 20, (16 << 20) + 4096, 64 << 20] {
        refused(&|firmware| firmware.code = code(len));
    }
    for name in [String::new(), "x".repeat(1000), "etc/\0".into()] {
        refused(&|firmware| drop(firmware.files.insert(name.clone(), vec![1])));
    }
    refused(&|firmware| {
        firmware
            .files
            .extend((0..70_000).map(|n| (format!("f{n}"), Vec::new())));
    });
}

#[test]
fn damaged_states_of_units_are_refused_or_restored() {
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Split);
    config.memory.file = None;
    let mut bench = Bench::boot(&config);
    bench.run(busy_guest());
    let saved = bench.save();
    bench.end(&config);
    let mut seed = 1_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for unit in saved.units() {
        let bytes = unit.state.as_bytes();
        for round in 0..ROUNDS {
            let mut bytes = bytes.to_vec();
            match round {
                0 => bytes.clear(),
                1 => bytes.truncate(bytes.len() / 2),
                2 => bytes = vec![0xa0],
                _ if bytes.is_empty() => continue,
                _ => {
                    for _ in 0..1 + random() % 3 {
                        let at = random() % bytes.len().min(if round % 2 == 0 { 64 } else { 4096 });
                        bytes[at] = random() as u8;
                    }
                }
            }
            let start = with_unit(&saved, &unit.name, bytes);
            // A damaged state may be that of another machine that can be.
            if let Ok(bench) = Bench::new(&config, &start) {
                let mut bench = bench;
                let _ = bench.machine.inspect();
                bench.machine.lifecycle.resume().unwrap();
                let _ = bench.machine.lifecycle.reset();
                bench.end(&config);
            }
        }
    }
}

/// Starts the VM with a worker.
fn launched(config: &VmConfig, hypervisor: &FakeHypervisor) -> VmHandle {
    let options = LaunchOptions {
        console_output: Box::new(std::io::sink()),
        events: Arc::new(|_| {}),
    };
    launch(hypervisor, config, &StartOptions::default(), options).unwrap()
}

/// Fails if `end` takes too long.
fn in_time(end: impl FnOnce() + Send + 'static) {
    let (send, done) = mpsc::channel();
    std::thread::spawn(move || {
        end();
        let _ = send.send(());
    });
    assert_eq!(done.recv_timeout(Duration::from_secs(30)), Ok(()));
}

#[test]
fn a_worker_ends_while_its_guest_is_busy() {
    for round in 0..6 {
        let files = Files::new();
        let config = files.config(files.uefi(), IrqchipMode::Kernel);
        if round % 2 == 0 {
            // The session is hibernated, so that the guest's announcements delete its token.
            let mut bench = Bench::boot(&config);
            hibernate(&mut bench);
            bench.end(&config);
        }
        let hypervisor = FakeHypervisor::new();
        let port = sleep_port::SleepPort::DEFAULT_PORT;
        let steps = || {
            let woke = sleep_port::SleepAnnouncement::Woke(sleep_port::SleepState::S4);
            let to_sleep =
                sleep_port::SleepAnnouncement::PreparingToSleep(sleep_port::SleepState::S4);
            [woke, to_sleep].map(|announcement| out(port, &[announcement.to_byte()]))
        };
        for vp in 0..2 {
            for _ in 0..200 {
                hypervisor.push(vp, steps());
            }
            hypervisor.push(vp, [out(0xcf9, &[6])]);
            for _ in 0..200 {
                hypervisor.push(vp, steps());
            }
        }
        let handle = launched(&config, &hypervisor);
        let store = files.path("vm.vmgs");
        in_time(move || {
            let inspected = handle.requests().call(VmRequest::Inspect, ());
            let paused = handle.requests().call(VmRequest::Pause, ());
            let resumed = handle.requests().call(VmRequest::Resume, ());
            let reset = handle.requests().call(VmRequest::Reset, ());
            pal_async::block_on(async {
                inspected.await.unwrap();
                paused.await.unwrap().unwrap();
                resumed.await.unwrap().unwrap();
                reset.await.unwrap().unwrap();
            });
            // Whether or not anybody waits for it, the worker ends with its last handle.
            if round < 3 {
                drop(handle.requests().call(VmRequest::Stop, ()));
            }
            drop(handle);
            while vmgs::FileDevice::open(&store, vmgs::Container::Detect, ACCESS).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

#[test]
fn a_machine_is_not_restored_beside_a_new_store() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let store = files.path("vm.vmgs");
    std::fs::remove_file(&store).unwrap();
    let error = Bench::new(&config, &Start::Restore(saved)).err().unwrap();
    assert!(matches!(error, MachineError::Vmgs(_)), "{error}");
    assert!(!store.exists());
}

#[test]
fn a_restore_that_fails_closes_the_store() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let store = files.path("vm.vmgs");
    in_time(move || {
        for unit in saved.units() {
            let start = with_unit(&saved, &unit.name, vec![0xff]);
            assert!(Bench::new(&config, &start).is_err(), "{}", unit.name);
            while vmgs::FileDevice::open(&store, vmgs::Container::Detect, ACCESS).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}
