use super::*;
use disk_spec::VirtioBlkHandle;
use openvmm_defs::config::BootProtocol;
use openvmm_defs::config::HibernationConfig;
use openvmm_defs::config::HostPages;
use openvmm_defs::config::LinuxDirect;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::Population;
use openvmm_defs::devices::PciDeviceConfig;
use openvmm_defs::devices::PciSlot;
use serial_16550::Serial16550Handle;
use serial_16550::SerialEnd;
use virt::TopologyConfig;
use virtio_net::HostNetwork;
use virtio_net::VirtioNetHandle;
use virtio_rng::VirtioRngHandle;
use vm_resource::Resource;

fn config(irqchip: IrqchipMode) -> VmConfig {
    VmConfig {
        topology: TopologyConfig {
            processors: 1,
            vps_per_socket: None,
            threads_per_core: 1,
        },
        irqchip,
        memory: MemoryConfig {
            size: 4 << 30,
            file: None,
            pages: HostPages::Default,
            population: Population::OnDemand,
            sharing: None,
        },
        load_mode: LoadMode::LinuxDirect(LinuxDirect {
            kernel: "/k".into(),
            initrd: None,
            cmdline: String::new(),
            protocol: BootProtocol::Auto,
        }),
        chipset_devices: Vec::new(),
        hibernation: HibernationConfig::default(),
        pci_devices: Vec::new(),
        vmgs: None,
        vmgs_memory: None,
        nested: false,
        uuid: std::array::from_fn(|n| n as u8 * 0x11),
    }
}

fn plan(config: &VmConfig) -> Result<DevicePlan, MachineError> {
    let layout = MemoryLayout::new(config.memory.size, platform::LOW_RAM_END, 40).unwrap();
    DevicePlan::new(config, &layout)
}

fn pci(name: &str, device: u8, function: u8, resource: Resource) -> PciDeviceConfig {
    PciDeviceConfig {
        name: name.into(),
        slot: PciSlot { device, function },
        resource,
    }
}

#[test]
fn what_a_hibernated_guest_relies_on_never_changes() {
    let mut config = config(IrqchipMode::Split);
    let port = |base| Serial16550Handle {
        base,
        irq: 4,
        end: SerialEnd::Stderr,
        input: None,
    };
    config.chipset_devices = vec![
        ChipsetDeviceConfig::new("com1", &port(0x3f8)),
        ChipsetDeviceConfig::new("com3", &port(0x3e8)),
    ];
    let disk = |text: &str| {
        let disk = text.parse().unwrap();
        Resource::new(&VirtioBlkHandle { disk })
    };
    let net = |mac: Option<&str>| {
        Resource::new(&VirtioNetHandle {
            network: HostNetwork::Tap("t".into()),
            mac: mac.map(|mac| mac.parse().unwrap()),
            mtu: None,
        })
    };
    config.pci_devices = vec![
        pci("disk0", 1, 0, disk("mem:1M,serial=abc")),
        pci("disk1", 1, 1, disk("mem:1M")),
        pci("net0", 2, 0, net(Some("02:00:00:00:00:01"))),
        pci("net1", 3, 0, net(None)),
        pci("rng0", 4, 0, Resource::new(&VirtioRngHandle {})),
    ];
    let plan = plan(&config).unwrap();
    let identities: Vec<_> = plan
        .identities()
        .into_iter()
        .map(|device| {
            let address = device.pci.map(|pci| pci.to_string());
            (device.name, address.unwrap_or_default(), device.identity)
        })
        .collect();
    let expected = [
        ("disk0", "00:01.0", "virtio-blk abc"),
        ("disk1", "00:01.1", "virtio-blk"),
        ("net0", "00:02.0", "virtio-net 02:00:00:00:00:01"),
        ("net1", "00:03.0", "virtio-net 86:fb:b3:54:6e:c3"),
        ("rng0", "00:04.0", "virtio-rng"),
        ("com1", "", "16550"),
        ("com3", "", "16550"),
        ("ioapic", "", "without PIC and PIT"),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(identities, expected);
    let multifunction: Vec<_> = plan
        .pci
        .iter()
        .map(|(_, slot)| slot.multifunction)
        .collect();
    assert_eq!(multifunction, [true, true, false, false, false]);
}

#[test]
fn the_profile_alone_has_an_identity_only_with_the_ioapic_of_the_vmm() {
    let kernel = plan(&config(IrqchipMode::Kernel)).unwrap();
    assert!(kernel.identities().is_empty());
    let names: Vec<_> = kernel.profile.iter().map(ResolvedDevice::name).collect();
    let expected = [
        "rtc",
        "pm",
        "i8042",
        "pvpanic",
        "sleep",
        "pci",
        "ecam",
        "host-bridge",
        "isa-bridge",
    ];
    assert_eq!(names, expected);
    let split = plan(&config(IrqchipMode::Split)).unwrap();
    assert_eq!(split.profile[0].name(), "ioapic");
}

#[test]
fn interrupt_pins_go_round() {
    let gsi = |device| {
        let function = 0;
        pci_gsi(PciSlot { device, function }.address())
    };
    assert_eq!(gsi(1), 17);
    assert_eq!(gsi(7), 23);
    assert_eq!(gsi(8), 16);
}

#[test]
fn a_function_that_no_guest_finds_is_refused_by_name() {
    let mut config = config(IrqchipMode::Kernel);
    for (device, function) in [(0, 0), (31, 0), (200, 0), (4, 200), (4, 1)] {
        let rng = Resource::new(&VirtioRngHandle {});
        config.pci_devices = vec![pci("rng7", device, function, rng)];
        let error = plan(&config).err().unwrap();
        assert!(error.to_string().starts_with("rng7 "), "{error}");
    }
}
