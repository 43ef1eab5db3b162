use super::*;
use chipset::ioapic::IoApicRouting;
use chipset_device::AddressDecoder;
use chipset_device::DeviceBuildError;
use chipset_device::DeviceWaker;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::DoorbellTarget;
use chipset_device::InterruptLines;
use chipset_device::LineTarget;
use chipset_device::MachineContext;
use chipset_device::MissingService;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;
use chipset_device::PciSlotContext;
use chipset_device::PowerSink;
use chipset_device::Services;
use chipset_device::SharedDevice;
use chipset_device::VpCount;
use guest_memory::GuestMemory;
use guest_memory::MemoryBacking;
use guest_memory::MemoryLayout;
use pci_core::MsiRecorder;
use serial_16550::SerialConnections;
use serial_16550::SerialEnd;
use sleep_port::AnnouncementSink;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use uuid::Uuid;
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
    let mut services = Services::new();
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
    services.offer(PowerSink::new(|_| {}));
    services.offer(AnnouncementSink::new(|_| {}));
    let console = Box::new(std::io::sink());
    services.offer(Arc::new(SerialConnections::new(console)));
    services
}

fn context<'a>(name: &'a str, services: &'a mut Services) -> MachineContext<'a> {
    MachineContext {
        name,
        vm: Uuid::nil(),
        waker: DeviceWaker::new(),
        decoder: AddressDecoder::detached(),
        config_space: PciConfigSpace::new(),
        services,
    }
}

fn build_chipset(
    resource: &Resource,
    services: &mut Services,
) -> Result<SharedDevice, DeviceBuildError> {
    let handle = chipset_devices().resolve("x", resource).unwrap();
    handle.build(&mut context("x", services))
}

fn build_pci(
    resource: &Resource,
    services: &mut Services,
) -> Result<SharedDevice, DeviceBuildError> {
    let handle = pci_devices().resolve("x", resource).unwrap();
    let slot = PciSlotContext {
        address: PciAddress {
            bus: 0,
            device: 1,
            function: 0,
        },
        gsi: 17,
        multifunction: false,
    };
    handle.build(&slot, &mut context("x", services))
}

/// One of each kind, in an order in which they can be built.
fn chipset_resources() -> Vec<Resource> {
    let port = Serial16550Handle {
        base: 0x3f8,
        irq: 4,
        end: SerialEnd::Console,
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
    };
    let host_bridge = HostBridgeHandle {
        ecam_base: 0xb000_0000,
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
        tap: "x".repeat(100),
        mac: None,
        mtu: None,
    }
}

fn sorted_kinds(resources: &[Resource]) -> Vec<&str> {
    let mut kinds: Vec<_> = resources.iter().map(Resource::id).collect();
    kinds.sort_unstable();
    kinds
}

#[test]
fn each_chipset_device_is_built_from_its_handle() {
    let resources = chipset_resources();
    let registered: Vec<_> = chipset_devices().kinds().collect();
    assert_eq!(sorted_kinds(&resources), registered);
    let mut services = services();
    for resource in &resources {
        let device = build_chipset(resource, &mut services).unwrap();
        device.lock().reset();
    }
    assert!(services.get::<chipset::pm::PmControl>().is_ok());
    assert!(services.get::<chipset::ioapic::IoApicPins>().is_ok());
}

#[test]
fn each_pci_device_is_built_from_its_handle() {
    let resources = pci_resources();
    let registered: Vec<_> = pci_devices().kinds().collect();
    assert_eq!(sorted_kinds(&resources), registered);
    let mut services = services();
    for resource in &resources {
        let built = build_pci(resource, &mut services);
        if resource.handle::<VirtioNetHandle>().is_some() {
            let error = built.err().unwrap();
            assert!(error.to_string().contains("network"), "{error}");
            continue;
        }
        let device = built.unwrap();
        assert_eq!(device.lock().claims().pci.unwrap().device, 1);
    }
}

#[test]
fn a_device_whose_machine_lacks_something_says_what() {
    for resource in chipset_resources() {
        let Err(error) = build_chipset(&resource, &mut Services::new()) else {
            let kind = resource.id();
            assert!(["q35-ecam", "q35-isa-bridge"].contains(&kind), "{kind}");
            continue;
        };
        assert!(error.is::<MissingService>(), "{error}");
    }
    let rng = Resource::new(&VirtioRngHandle {});
    let error = build_pci(&rng, &mut Services::new()).err().unwrap();
    assert!(error.is::<MissingService>(), "{error}");
}
