//! Whole machines on a hypervisor whose guests are scripts.

use super::*;
use chipset::DebugPortHandle;
use chipset_device::DeviceHandle;
use disk_spec::VirtioBlkHandle;
use firmware_hibernation::ConsumePolicy;
use firmware_hibernation::Override;
use machine_parts::Change;
use machine_parts::Ending;
use machine_parts::Guest as _;
use machine_parts::HaltReason;
use machine_parts::LifecycleEvent;
use machine_parts::MachineState;
use machine_parts::OnReset;
use machine_parts::Report;
use machine_parts::RunControl;
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
use openvmm_defs::start::BootOptions;
use ovmf_image::constructed;
use parking_lot::Mutex;
use serial_16550::COM_PORTS;
use serial_16550::Serial16550Handle;
use serial_16550::SerialEnd;
use state_unit::SavedUnits;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::mpsc;
use std::time::Duration;
use virt::Hypervisor as _;
use virt::IrqchipMode;
use virt::TopologyConfig;
use virt_fake::Event;
use virt_fake::FakeHypervisor;
use virt_fake::Step;
use virtio_rng::VirtioRngHandle;
use vm_resource::Resource;

const RAM: u64 = 64 << 20;
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

    fn path(&self, name: &str) -> PathBuf {
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

    fn uefi(&self) -> LoadMode {
        LoadMode::PcUefi(PcUefi {
            code: self.path("OVMF_CODE.fd"),
            variables: UefiVariables::Vmgs,
            kernel: None,
        })
    }

    pub(crate) fn config(&self, load_mode: LoadMode, irqchip: IrqchipMode) -> VmConfig {
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
fn a_reset_loads_the_kernel_again_and_a_restore_does_not() {
    // Where the kernel wants to be.
    const KERNEL: u64 = 0x100_0000;
    let overwrite = || {
        vec![Step::WriteMemory {
            gpa: KERNEL,
            data: vec![0xaa],
        }]
    };
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let ram = || {
        let file = std::fs::File::open(files.path("ram")).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, KERNEL).unwrap();
        byte[0]
    };
    let mut first = Bench::boot(&config);
    first.run(overwrite());
    first.machine.lifecycle.reset().unwrap();
    assert_eq!(ram(), 0);
    first.run(overwrite());
    let saved = first.save();
    first.end(&config);

    let mut second = Bench::new(&config, &Start::Restore(saved)).unwrap();
    assert_eq!(ram(), 0xaa);
    second.machine.lifecycle.reset().unwrap();
    assert_eq!(ram(), 0);
    second.end(&config);
}

#[test]
fn interrupt_controllers_are_restored_before_devices() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let mut first = Bench::boot(&config);
    // COM1 interrupts because it can send.
    first.run(vec![out(0x3fc, &[0x0b]), out(0x3f9, &[2])]);
    let saved = first.save();
    first.end(&config);
    let second = Bench::new(&config, &Start::Restore(saved)).unwrap();
    let events = second.hypervisor.events();
    let at = |event: &Event| events.iter().position(|e| e == event).unwrap();
    let gsi = u32::from(COM_PORTS[0].1);
    let high = Event::SetLine { gsi, high: true };
    assert!(at(&Event::RestorePartition) < at(&high), "{events:?}");
    second.end(&config);
}

#[test]
fn a_line_that_is_still_high_interrupts_again_at_the_end_of_an_interrupt() {
    const IOAPIC: u64 = 0xfec0_0000;
    const VECTOR: u8 = 0x30;
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Split);
    let mut bench = Bench::boot(&config);
    let gsi = u32::from(COM_PORTS[0].1);
    let write = |offset: u64, value: u32| Step::WriteMemory {
        gpa: IOAPIC + offset,
        data: value.to_le_bytes().to_vec(),
    };
    bench.run(vec![
        write(0, 0x10 + 2 * gsi),
        write(0x10, 1 << 15 | u32::from(VECTOR)), // level-triggered
        out(0x3fc, &[0x0b]),
        out(0x3f9, &[2]),
    ]);
    let hypervisor = bench.hypervisor.clone();
    let asserted = || {
        let events = hypervisor.take_events().into_iter();
        events.filter(|e| *e == Event::AssertLine { gsi }).count()
    };
    assert_eq!(asserted(), 1);
    bench.run(vec![Step::EndOfInterrupt { vector: VECTOR }]);
    assert_eq!(asserted(), 1);
    bench.machine.stop();
}

#[test]
fn input_that_was_not_read_is_kept_across_a_restore_and_a_reset() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let mut first = Bench::boot(&config);
    let console = first.machine.console().unwrap();
    assert_eq!(console.write_input(&[b'x'; 100]), 100);
    let saved = first.save();
    first.end(&config);
    let mut second = Bench::new(&config, &Start::Restore(saved)).unwrap();
    second.machine.lifecycle.reset().unwrap();
    let read = |port| Step::ReadPort { port, size: 1 };
    second.run(vec![read(0x3fd), read(0x3f8)]);
    let input = Event::PortRead {
        vp: 0,
        port: 0x3f8,
        data: vec![b'x'],
    };
    let events = second.hypervisor.take_events();
    assert!(events.contains(&input), "{events:?}");
    second.end(&config);
}

#[test]
fn the_rtc_says_how_much_ram_there_is() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    // Units of 64 KiB: above 16 MiB, and above 4 GiB.
    for (register, value) in [(0x34, 0), (0x35, 3), (0x5b, 0), (0x5c, 0), (0x5d, 0)] {
        bench.run(vec![
            out(0x70, &[register]),
            Step::ReadPort {
                port: 0x71,
                size: 1,
            },
        ]);
        let read = Event::PortRead {
            vp: 0,
            port: 0x71,
            data: vec![value],
        };
        assert!(
            bench.hypervisor.take_events().contains(&read),
            "register {register:#x}"
        );
    }
    bench.machine.stop();
}

#[test]
fn a_machine_with_fewer_vps_refuses_the_restore() {
    let files = Files::new();
    let mut config = files.config(files.linux(), IrqchipMode::Kernel);
    // The disk has a queue for each VP.
    config.pci_devices.remove(0);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let mut other = config.clone();
    other.topology.processors = 1;
    let error = Bench::new(&other, &Start::Restore(saved)).err().unwrap();
    let text = error_chain::Chain(&error).to_string();
    assert!(text.contains("2 VPs"), "{text}");
}

#[test]
fn a_missing_unit_refuses_the_restore() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
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
        assert_eq!(bench.machine.inspect()["units"]["vps"], json!({}));
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

/// A machine whose guest has hibernated.
fn hibernated(files: &Files) -> VmConfig {
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    bench.end(&config);
    config
}

#[test]
fn a_hibernated_session_can_be_discarded() {
    let files = Files::new();
    let config = hibernated(&files);
    let bench = Bench::new(
        &config,
        &Start::Boot(BootOptions {
            hibernation_override: Some(Override::Discard),
        }),
    )
    .unwrap();
    assert_eq!(bench.take_events(), ["discarded", "captured"]);
    bench.end(&config);
    let bench = Bench::boot(&config);
    assert_eq!(bench.take_events(), ["captured"]);
    bench.end(&config);
}

#[test]
fn a_guest_that_powers_off_has_left_its_hibernated_session() {
    let files = Files::new();
    let config = hibernated(&files);
    let mut bench = Bench::boot(&config);
    bench.hypervisor.push(0, [out(0x604, &[0, 0x20])]);
    bench.machine.lifecycle.resume().unwrap();
    bench.power_request();
    let events = bench.take_events();
    assert!(events.contains(&"token_cleared".to_owned()), "{events:?}");
    bench.end(&config);
}

#[test]
fn sleep_announcements_tell_whether_the_guest_resumed() {
    const SLEEP: u16 = 0x506;
    let happened = |bench: &Bench, event: &str| bench.take_events().iter().any(|e| e == event);
    let files = Files::new();
    let config = hibernated(&files);
    let mut bench = Bench::boot(&config);
    // Firmware resets before there is a guest.
    bench.machine.lifecycle.reset().unwrap();
    assert!(happened(&bench, "token_kept"));
    // Woke from S3, and from S4.
    bench.run(vec![out(SLEEP, &[0x23])]);
    assert!(!happened(&bench, "consumed"));
    bench.run(vec![out(SLEEP, &[0x24])]);
    assert!(happened(&bench, "consumed"));
    bench.end(&config);

    for on_reset in [OnReset::Restart, OnReset::Halt] {
        let files = Files::new();
        let config = hibernated(&files);
        let mut bench = Bench::boot(&config);
        // Prepares to enter S4: a guest runs that did not resume.
        bench.run(vec![out(SLEEP, &[0x14])]);
        match on_reset {
            OnReset::Restart => bench.machine.lifecycle.reset().unwrap(),
            OnReset::Halt => {
                let guest = bench.machine.lifecycle.guest();
                guest.settle(Ending::Halted(&HaltReason::Reset)).unwrap();
            }
        }
        assert!(happened(&bench, "token_cleared"), "{on_reset:?}");
        bench.end(&config);
    }
}

#[test]
fn a_token_that_is_consumed_at_start_lasts_until_the_guest_runs() {
    for reset in [false, true] {
        let files = Files::new();
        let mut config = hibernated(&files);
        config.hibernation.consume = ConsumePolicy::AtStart;
        let consumed = |bench: &Bench| bench.take_events().contains(&"consumed".to_owned());
        let mut bench = Bench::boot(&config);
        if reset {
            bench.machine.lifecycle.reset().unwrap();
        }
        let saved = bench.save();
        assert!(!consumed(&bench));
        bench.end(&config);

        let mut bench = Bench::new(&config, &Start::Restore(saved)).unwrap();
        assert!(!consumed(&bench));
        bench.machine.lifecycle.resume().unwrap();
        assert!(consumed(&bench), "reset: {reset}");
        bench.end(&config);
    }
}
