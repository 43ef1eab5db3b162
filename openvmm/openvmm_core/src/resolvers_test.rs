use super::*;
use chipset::ioapic::IoApicPins;
use chipset::ioapic::IoApicRouting;
use chipset::pm::PmControl;
use chipset::pm::PmLayout;
use chipset_device::AddressDecoder;
use chipset_device::DeviceWaker;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::DoorbellTarget;
use chipset_device::InterruptLines;
use chipset_device::LineError;
use chipset_device::LineTarget;
use chipset_device::MachineContext;
use chipset_device::MissingService;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::NoPciSlot;
use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;
use chipset_device::PciSlotContext;
use chipset_device::PowerSink;
use chipset_device::Services;
use chipset_device::SharedDevice;
use chipset_device::VpCount;
use disk_backend::AttachedDisks;
use disk_spec::DiskSource;
use disk_spec::DiskSpec;
use firmware_uefi::LogLevel;
use firmware_uefi::NvramPlace;
use guest_memory::GuestMemory;
use guest_memory::MemoryBacking;
use guest_memory::MemoryLayout;
use pci_core::MsiRecorder;
use serial_16550::SerialConnections;
use serial_16550::SerialEnd;
use sleep_port::AnnouncementSink;
use std::error::Error;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use uefi_nvram::SecureBoot;
use uuid::Uuid;
use virtio_net::HostNetwork;
use vm_resource::ResolveError;
use vm_resource::Resource;
use vmtime::VmClock;

/// A hypervisor whose interrupts go nowhere, and that has no doorbells.
struct Hypervisor;

impl LineTarget for Hypervisor {
    fn set_line(&self, _gsi: u32, _high: bool) {}
}

impl IoApicRouting for Hypervisor {
    fn set_route(&self, _pin: u8, _route: Option<MsiMessage>) {}

    fn assert(&self, _pin: u8) -> bool {
        true
    }
}

impl DoorbellTarget for Hypervisor {
    fn register(
        &self,
        _address: DoorbellAddress,
        _matching: DoorbellMatch,
        _event: BorrowedFd<'_>,
    ) -> std::io::Result<Box<dyn Doorbell>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// What a machine offers before it has any device.
fn services() -> Services {
    let mut services = Services::default();
    let msis: Arc<dyn MsiTarget> = Arc::new(MsiRecorder::new());
    services.offer(msis);
    let doorbells: Arc<dyn DoorbellTarget> = Arc::new(Hypervisor);
    services.offer(doorbells);
    let routing: Arc<dyn IoApicRouting> = Arc::new(Hypervisor);
    services.offer(routing);
    services.offer(InterruptLines::new(Arc::new(Hypervisor)));
    services.offer(VpCount(2));
    let layout = MemoryLayout::new(32 << 20, 0xb000_0000, 40).unwrap();
    services.offer(GuestMemory::new(layout, &MemoryBacking::default()).unwrap());
    services.offer(VmClock::new());
    services.offer(AttachedDisks::default());
    services.offer(PowerSink::new(|_| {}));
    services.offer(AnnouncementSink::new(|_| {}));
    let console = Box::new(std::io::sink());
    services.offer(Arc::new(SerialConnections::new(console)));
    services
}

fn build(
    resource: &Resource,
    pci_slot: Option<PciSlotContext>,
    services: &mut Services,
) -> Result<SharedDevice, ResolveError> {
    devices()
        .resolve("x", resource)?
        .build(&mut MachineContext {
            name: "x",
            vm: Uuid::nil(),
            pci_slot,
            waker: DeviceWaker::default(),
            decoder: AddressDecoder::detached(),
            config_space: PciConfigSpace::default(),
            services,
        })
}

const SLOT: PciSlotContext = PciSlotContext {
    address: PciAddress {
        bus: 0,
        device: 1,
        function: 0,
    },
    gsi: 17,
    multifunction: false,
};

/// One of each kind, in an order in which they can be built.
fn chipset_resources() -> Vec<Resource> {
    let port = Serial16550Handle {
        base: 0x3f8,
        irq: 4,
        end: SerialEnd::Console,
        input: None,
    };
    let debug_port = DebugPortHandle {
        port: 0x402,
        end: SerialEnd::Stderr,
    };
    let rtc = RtcHandle {
        irq: 8,
        ram_below_4g: 32 << 20,
        ram_above_4g: 0,
    };
    let pm = PmHandle {
        base: 0x600,
        irq: 9,
        offers_hibernation: true,
        layout: PmLayout::Ich9,
    };
    let host_bridge = HostBridgeHandle {
        ecam_base: 0xb000_0000,
    };
    let uefi = FirmwareUefiHandle {
        nvram: NvramPlace::Memory,
        secure_boot: SecureBoot::default(),
        log_level: LogLevel::Default,
        generation_id: [0; 16],
    };
    vec![
        Resource::new(&IoApicHandle {}),
        Resource::new(&port),
        Resource::new(&debug_port),
        Resource::new(&rtc),
        Resource::new(&pm),
        Resource::new(&I8042Handle { irq: 1 }),
        Resource::new(&PvPanicHandle { port: 0x505 }),
        Resource::new(&SleepPortHandle {}),
        Resource::new(&ConfigPortsHandle {}),
        Resource::new(&EcamHandle {}),
        Resource::new(&host_bridge),
        Resource::new(&IsaBridgeHandle { pm_base: 0x600 }),
        Resource::new(&uefi),
    ]
}

fn pci_resources() -> Vec<Resource> {
    vec![
        Resource::new(&VirtioRngHandle {}),
        Resource::new(&VirtioBlkHandle {
            disk: "mem:1M".parse().unwrap(),
        }),
        Resource::new(&net()),
    ]
}

/// An interface that no host can have: its name is too long.
fn net() -> VirtioNetHandle {
    VirtioNetHandle {
        network: HostNetwork::Tap("x".repeat(100)),
        mac: None,
        mtu: None,
    }
}

#[test]
fn each_kind_of_device_is_built_from_its_handle() {
    let (chipset, pci) = (chipset_resources(), pci_resources());
    let mut kinds: Vec<_> = chipset.iter().chain(&pci).map(Resource::id).collect();
    kinds.sort_unstable();
    let registered: Vec<_> = devices().kinds().collect();
    assert_eq!(kinds, registered);

    let mut services = services();
    for resource in &chipset {
        let device = build(resource, None, &mut services).unwrap();
        device.lock().reset();
    }
    assert!(services.get::<PmControl>().is_ok());
    assert!(services.get::<IoApicPins>().is_ok());
    for resource in &pci {
        let built = build(resource, Some(SLOT), &mut services);
        if resource.handle::<VirtioNetHandle>().is_some() {
            let error = cause(built);
            assert!(error.to_string().contains("network"), "{error}");
            continue;
        }
        let device = built.unwrap();
        assert_eq!(device.lock().fixed_resources().pci, Some(SLOT.address));
    }
}

/// Why a device was not built.
fn cause(built: Result<SharedDevice, ResolveError>) -> Box<dyn Error + Send + Sync> {
    match built.err() {
        Some(ResolveError::Build { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_whose_machine_lacks_something_says_so() {
    for resource in chipset_resources() {
        let built = build(&resource, None, &mut Services::default());
        if ["q35-ecam", "q35-isa-bridge"].contains(&resource.id()) {
            assert!(built.is_ok());
        } else {
            let error = cause(built);
            assert!(error.is::<MissingService>(), "{error}");
        }
    }
    let rng = Resource::new(&VirtioRngHandle {});
    let error = cause(build(&rng, Some(SLOT), &mut Services::default()));
    assert!(error.is::<MissingService>(), "{error}");
    let error = cause(build(&rng, None, &mut services()));
    assert!(error.is::<NoPciSlot>(), "{error}");
}

#[test]
fn a_handle_with_impossible_values_is_refused() {
    let port = |base, irq| {
        Resource::new(&Serial16550Handle {
            base,
            irq,
            end: SerialEnd::Console,
            input: None,
        })
    };
    let pm = |base, irq| {
        Resource::new(&PmHandle {
            base,
            irq,
            offers_hibernation: false,
            layout: PmLayout::Ich9,
        })
    };
    let disk = |change: fn(&mut DiskSpec)| {
        let mut disk = "mem:1M".parse().unwrap();
        change(&mut disk);
        Resource::new(&VirtioBlkHandle { disk })
    };
    let net = |mtu| {
        let mtu = Some(mtu);
        Resource::new(&VirtioNetHandle { mtu, ..net() })
    };
    for (resource, text) in [
        (port(0xfff9, 4), "0xfff9"),
        (port(0xffff, 4), "0xffff"),
        (port(0x3f8, 24), "interrupt line 24"),
        (port(0x3f8, 255), "interrupt line 255"),
        (pm(0xffff, 9), "0xffff"),
        (pm(0x600, 24), "interrupt line 24"),
        (Resource::new(&I8042Handle { irq: 99 }), "interrupt line 99"),
        (disk(|disk| disk.queues = Some(0)), "not 0"),
        (disk(|disk| disk.queues = Some(65535)), "not 65535"),
        (
            disk(|disk| disk.source = DiskSource::Memory { size: 0 }),
            "0",
        ),
        (
            disk(|disk| disk.source = DiskSource::Memory { size: 513 }),
            "513",
        ),
        (net(0), "MTU is 0"),
        (net(67), "MTU is 67"),
    ] {
        let error = build(&resource, Some(SLOT), &mut services()).err().unwrap();
        let chain = error_chain::Chain(&error).to_string();
        assert!(chain.contains("cannot create x"), "{chain}");
        assert!(chain.contains(text), "{chain}");
    }
    // The largest there are.
    for resource in [
        port(0xfff8, 23),
        disk(|disk| disk.queues = Some(64)),
        disk(|disk| {
            disk.source = DiskSource::Memory { size: !511 };
        }),
    ] {
        build(&resource, Some(SLOT), &mut services()).unwrap();
    }
    let mut services = services();
    for _ in 0..64 {
        build(&port(0x3f8, 4), None, &mut services).unwrap();
    }
    let error = cause(build(&port(0x3f8, 4), None, &mut services));
    assert!(error.is::<LineError>(), "{error}");
}
