use super::*;
use chipset_device::AddressDecoder;
use chipset_device::DeviceWaker;
use chipset_device::MissingService;
use chipset_device::PciConfigSpace;
use chipset_device::Services;
use minicbor::Decode;
use minicbor::Encode;
use sleep_port::AnnouncementSink;
use sleep_port::SleepPortHandle;

/// A device that is never built.
#[derive(Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
struct Lamp {
    #[n(1)]
    color: String,
}

impl DeviceHandle for Lamp {
    const ID: &'static str = "lamp";

    fn identity(&self, name: &str, vm: Uuid) -> Option<String> {
        Some(format!("{name} of {vm} in {}", self.color))
    }

    fn build(&self, _machine: &mut MachineContext<'_>) -> BuildResult {
        Err("no power".into())
    }
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register::<SleepPortHandle>();
    registry.register::<Lamp>();
    registry
}

fn lamp() -> Resource {
    Resource::new(&Lamp {
        color: "red".into(),
    })
}

fn build(device: &ResolvedDevice, services: &mut Services) -> Result<SharedDevice, ResolveError> {
    device.build(&mut MachineContext {
        name: device.name(),
        vm: Uuid::nil(),
        pci_slot: None,
        waker: DeviceWaker::default(),
        decoder: AddressDecoder::detached(),
        config_space: PciConfigSpace::default(),
        services,
    })
}

#[test]
fn a_stored_resource_is_the_device_that_its_handle_describes() {
    let bytes = payload::encode(&vec![lamp(), Resource::new(&SleepPortHandle {})]);
    let stored: Vec<Resource> = payload::decode(&bytes).unwrap();
    let lamp = registry().resolve("lamp0", &stored[0]).unwrap();
    let identity = lamp.identity(Uuid::nil()).unwrap();
    let expected = "lamp0 of 00000000-0000-0000-0000-000000000000 in red";
    assert_eq!((lamp.name(), &*identity), ("lamp0", expected));
    let sleep = registry().resolve("sleep", &stored[1]).unwrap();
    assert_eq!(sleep.identity(Uuid::nil()), None);
    let mut services = Services::default();
    services.offer(AnnouncementSink::new(|_| {}));
    assert!(build(&sleep, &mut services).is_ok());

    let handle = stored[0].handle::<Lamp>().unwrap();
    assert_eq!(handle.unwrap().color, "red");
    assert!(stored[0].handle::<SleepPortHandle>().is_none());
    let kinds: Vec<_> = registry().kinds().collect();
    assert_eq!(kinds, ["lamp", "sleep-port"]);
}

#[test]
fn an_unknown_kind_is_an_error_that_names_device_and_kind() {
    let resolved = Registry::default().resolve("lamp0", &lamp());
    let error = resolved.err().unwrap();
    assert!(matches!(error, ResolveError::UnknownKind { .. }));
    let text = error.to_string();
    assert!(text.contains("lamp0") && text.contains("`lamp`"), "{text}");
}

#[test]
fn a_handle_that_does_not_decode_is_an_error_that_says_which_field() {
    let broken = Resource {
        id: "lamp".into(),
        handle: vec![0xa0],
    };
    let error = registry().resolve("lamp0", &broken).err().unwrap();
    assert!(error.to_string().contains("lamp0"), "{error}");
    let ResolveError::Decode { source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source, DecodeError::MissingField { field: 1 });
    assert!(matches!(broken.handle::<Lamp>(), Some(Err(_))));
}

#[test]
fn a_failure_to_build_names_the_device_and_keeps_its_cause() {
    let lamp = registry().resolve("lamp0", &lamp()).unwrap();
    let error = build(&lamp, &mut Services::default()).err().unwrap();
    assert!(error.to_string().contains("lamp0"), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "no power");

    let sleep = Resource::new(&SleepPortHandle {});
    let sleep = registry().resolve("sleep", &sleep).unwrap();
    let error = build(&sleep, &mut Services::default()).err().unwrap();
    let ResolveError::Build { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(source.is::<MissingService>(), "{source}");
}
