//! A guest cannot flood the log, whatever it does to its devices.
#![allow(clippy::unwrap_used, reason = "for tests")]

use chipset::DebugPortHandle;
use chipset_device::DeviceHandle;
use disk_spec::VirtioBlkHandle;
use firmware_hibernation::ConsumePolicy;
use openvmm_core::LaunchOptions;
use openvmm_core::launch;
use openvmm_defs::config::HibernationConfig;
use openvmm_defs::config::HostPages;
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
use openvmm_defs::start::StartOptions;
use ovmf_image::constructed;
use pal_async::block_on;
use parking_lot::Mutex;
use serial_16550::COM_PORTS;
use serial_16550::Serial16550Handle;
use serial_16550::SerialEnd;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tracing::Level;
use tracing::Metadata;
use tracing::span;
use virt::IrqchipMode;
use virt::TopologyConfig;
use virt_fake::FakeHypervisor;
use virt_fake::Step;
use virtio_rng::VirtioRngHandle;
use vm_resource::Resource;

const RAM: u64 = 64 << 20;

/// Each source of lines is limited to this many per second.
const LINES_PER_SECOND: u64 = 5;
/// The most sources at one place in the code: devices of the same kind.
const SOURCES: u64 = 4;

/// Counts the lines of each place in the code that logs.
#[derive(Clone, Default)]
struct LineCounter(Arc<Mutex<BTreeMap<String, u64>>>);

impl tracing::Subscriber for LineCounter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let metadata = event.metadata();
        let (file, line) = (metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
        *self.0.lock().entry(format!("{file}:{line}")).or_default() += 1;
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
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

/// A machine with a device of each kind that needs nothing of the host.
fn config(dir: &Path, irqchip: IrqchipMode) -> VmConfig {
    let path = |name: &str| dir.join(name);
    let code = constructed::code(4 << 20, constructed::Smm::Without);
    std::fs::write(path("CODE.fd"), code).unwrap();
    std::fs::write(path("VARS.fd"), constructed::variables(0x84000)).unwrap();
    std::fs::write(path("shrinks.img"), vec![0; 1 << 20]).unwrap();
    let disk = |text: &str| VirtioBlkHandle {
        disk: text.parse().unwrap(),
    };
    let com = |index: usize, end| {
        let (base, irq) = COM_PORTS[index];
        Serial16550Handle {
            base,
            irq,
            end,
            input: None,
        }
    };
    let full_disk = || SerialEnd::File("/dev/full".into());
    VmConfig {
        topology: TopologyConfig {
            processors: 1,
            vps_per_socket: None,
            threads_per_core: 1,
        },
        irqchip,
        memory: MemoryConfig {
            size: RAM,
            file: None,
            pages: HostPages::Default,
            population: Population::OnDemand,
            sharing: None,
        },
        load_mode: LoadMode::PcUefi(PcUefi {
            code: path("CODE.fd"),
            variables: UefiVariables::File(path("VARS.fd")),
            kernel: None,
        }),
        chipset_devices: vec![
            ChipsetDeviceConfig::new("com1", &com(0, SerialEnd::Console)),
            ChipsetDeviceConfig::new("com2", &com(1, full_disk())),
            ChipsetDeviceConfig::new(
                "debugcon",
                &DebugPortHandle {
                    port: 0x402,
                    end: full_disk(),
                },
            ),
        ],
        hibernation: HibernationConfig {
            enabled: true,
            consume: ConsumePolicy::Handoff,
        },
        pci_devices: vec![
            pci("disk0", 1, &disk("mem:1M")),
            pci(
                "disk1",
                2,
                &disk(&format!("file:{}", path("shrinks.img").display())),
            ),
            pci("rng0", 3, &VirtioRngHandle {}),
        ],
        vmgs: Some(path("vm.vmgs")),
        vmgs_memory: None,
        nested: false,
        uuid: [7; 16],
    }
}

/// The functions at devices 1 to 3, with the addresses of their BARs.
const FUNCTIONS: [(u32, u64); 3] = [(1, 0xc000_0000), (2, 0xc010_0000), (3, 0xc020_0000)];
/// Where a function's MSI-X table is, from its BARs' address.
const MSIX: u64 = 0x8_0000;

/// Ports that end or reset the machine: i8042, fast reset, panic, PM1 control, reset control.
const DANGEROUS: [u16; 6] = [0x64, 0x92, 0x505, 0x604, 0x605, 0xcf9];

/// Ranges of ports.
const PORTS: [(u16, u16); 9] = [
    (0x60, 0x60),
    (0x70, 0x77),
    (0x2f8, 0x2ff),
    (0x3f8, 0x3ff),
    (0x402, 0x402),
    (0x500, 0x51f),
    (0x600, 0x67f),
    (0xcf8, 0xcff),
    (0, 0xffff),
];

/// Ranges of memory by address and length: configuration space, I/O APIC, flash, BARs.
const MEMORY: [(u64, u64); 7] = [
    (0xb000_0000, 0x10_0000),
    (0xfec0_0000, 0x1000),
    (0xffc0_0000, 0x40_0000),
    (0xc000_0000, 0x4000),
    (0xc010_0000, 0x4000),
    (0xc020_0000, 0x4000),
    (0xf000_0000, 0x1000_0000),
];

/// A guest that does anything but end or reset its machine.
struct Vandal {
    random: u64,
    steps: Vec<Step>,
}

impl Vandal {
    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random() % limit
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.random() as u8).collect()
    }

    fn store(&mut self, gpa: u64, data: &[u8]) {
        self.steps.push(Step::WriteMemory {
            gpa,
            data: data.to_vec(),
        });
    }

    fn config(&mut self, device: u32, register: u32, value: u32) {
        let address = 1 << 31 | device << 11 | register;
        for (port, value) in [(0xcf8, address), (0xcfc, value)] {
            self.steps.push(Step::WritePort {
                port,
                data: value.to_le_bytes().to_vec(),
            });
        }
    }

    /// Initializes the function at `device` as a driver does, and gives it requests.
    fn drive(&mut self, device: u32, base: u64) {
        let msix = (base + MSIX) as u32;
        for (register, value) in [
            (0x10, base as u32),
            (0x14, 0),
            (0x18, msix),
            (0x1c, 0),
            (4, 6),
        ] {
            self.config(device, register, value);
        }
        for status in [0, 1, 3] {
            self.store(base + 20, &[status]);
        }
        // The feature VERSION_1.
        self.store(base + 8, &1_u32.to_le_bytes());
        self.store(base + 12, &1_u32.to_le_bytes());
        self.store(base + 20, &[0xb]);
        let rings = 0x10_0000 * (1 + u64::from(device));
        self.store(base + 22, &[0, 0]);
        self.store(base + 24, &8_u16.to_le_bytes());
        for (register, offset) in [(32, 0), (40, 0x1000), (48, 0x2000)] {
            self.store(base + register, &(rings + offset).to_le_bytes());
        }
        self.store(base + 28, &[1, 0]);
        self.store(base + 20, &[0xf]);
        self.program_messages(device, base);
        for _ in 0..20 {
            self.make_requests(base, rings);
        }
    }

    /// Fills the rings with requests of the right form, or with anything.
    fn make_requests(&mut self, base: u64, rings: u64) {
        let mut descriptors = Vec::new();
        for n in 0..8_u16 {
            let gpa = match self.below(8) {
                0 => self.random(),
                _ => 0x80_0000 + self.below(0x10_0000),
            };
            let len = 1 + self.below(if n % 3 == 1 { 4096 } else { 16 }) as u32;
            // A header, data to write and a status.
            let flags = [1_u16, 3, 2][usize::from(n % 3)];
            descriptors.extend(gpa.to_le_bytes());
            descriptors.extend(len.to_le_bytes());
            descriptors.extend(flags.to_le_bytes());
            descriptors.extend((n + 1).to_le_bytes());
        }
        if self.below(4) == 0 {
            descriptors = self.bytes(128);
        }
        self.store(rings, &descriptors);
        let mut available = vec![0, 0];
        available.extend((self.below(8) as u16).to_le_bytes());
        available.extend([0, 0, 3, 0].repeat(4));
        self.store(rings + 0x1000, &available);
        self.store(base + 0x3000, &[0, 0]);
    }

    /// Turns MSI-X on, and fills its table with messages that can and cannot be delivered.
    fn program_messages(&mut self, device: u32, base: u64) {
        // Wherever the capability is.
        for register in (0x40..0x100).step_by(4) {
            self.config(device, register, 0x8000_0011);
        }
        for _ in 0..20 {
            let entry = base + MSIX + 16 * self.below(2);
            let high = self.below(512) as u32;
            for (at, word) in [(0, 0xfee0_0000), (4, high), (8, 0x41), (12, 0)] {
                self.store(entry + at, &word.to_le_bytes());
            }
        }
    }

    fn access_a_port(&mut self) {
        let (first, last) = PORTS[self.below(9) as usize];
        let port = first + self.below(u64::from(last - first) + 1) as u16;
        let len = [1, 1, 2, 4][self.below(4) as usize];
        let touched = port..=port.saturating_add(len - 1);
        let address_register = port == 0xcf8 && len == 4;
        if !address_register && DANGEROUS.iter().any(|port| touched.contains(port)) {
            return;
        }
        let size = usize::from(len);
        let step = match self.below(3) {
            0 => Step::ReadPort { port, size },
            _ => Step::WritePort {
                port,
                data: self.bytes(size),
            },
        };
        self.steps.push(step);
    }

    fn access_memory(&mut self) {
        let (start, len) = MEMORY[self.below(7) as usize];
        let gpa = start + self.below(len);
        let size = [1, 2, 4, 8][self.below(4) as usize];
        let step = match self.below(3) {
            0 => Step::ReadMemory { gpa, size },
            _ => Step::WriteMemory {
                gpa,
                data: self.bytes(size),
            },
        };
        self.steps.push(step);
    }

    fn round(&mut self) -> Vec<Step> {
        for (device, base) in FUNCTIONS {
            self.drive(device, base);
        }
        for _ in 0..2000 {
            match self.below(2) {
                0 => self.access_a_port(),
                _ => self.access_memory(),
            }
        }
        std::mem::take(&mut self.steps)
    }
}

#[test]
fn a_guest_cannot_flood_the_log() {
    let counter = LineCounter::default();
    tracing::subscriber::set_global_default(counter.clone()).unwrap();
    for irqchip in [IrqchipMode::Kernel, IrqchipMode::Split] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), irqchip);
        let hypervisor = FakeHypervisor::new();
        let options = LaunchOptions {
            console_output: Box::new(std::io::sink()),
            events: Arc::new(|_| {}),
            vmgs_key: None,
        };
        let vm = launch(&hypervisor, &config, &StartOptions::default(), options).unwrap();
        // From now on, I/O on this disk fails.
        let image = std::fs::File::options()
            .write(true)
            .open(dir.path().join("shrinks.img"));
        image.unwrap().set_len(4096).unwrap();
        counter.0.lock().clear();
        let start = Instant::now();
        let mut vandal = Vandal {
            random: 1,
            steps: Vec::new(),
        };
        for _ in 0..30 {
            hypervisor.push(0, vandal.round());
            while hypervisor.steps_left(0) > 0 {
                let tree = block_on(vm.requests.call(VmRequest::Inspect, ())).unwrap();
                let state = serde_json::Value::from(tree)["vm"]["state"].clone();
                assert_eq!(state, "running", "the guest ended its machine");
                std::thread::sleep(Duration::from_millis(5));
            }
            hypervisor.take_events();
        }
        let seconds = start.elapsed().as_secs() + 2;
        let lines = counter.0.lock().clone();
        for (place, count) in &lines {
            assert!(
                *count <= LINES_PER_SECOND * SOURCES * seconds,
                "{count} lines in {seconds} s at {place}: {lines:#?}"
            );
        }
        // What the guest does is noticed, at several places.
        assert!(lines.len() >= 5, "{lines:#?}");
        block_on(vm.requests.call(VmRequest::Stop, ())).unwrap();
    }
}
