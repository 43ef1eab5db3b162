//! Both configuration mechanisms with a fake configuration space.

use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::DecodedRanges;
use chipset_device::IoError;
use chipset_device::PciAddress;
use chipset_device::PciConfigAccess;
use chipset_device::PciConfigSpace;
use chipset_device::PowerEvent;
use chipset_device::PowerSink;
use chipset_device::SavedState;
use parking_lot::Mutex;
use proptest::prelude::*;
use q35::ConfigPorts;
use q35::Ecam;
use q35::HostBridge;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// All bytes of configuration space, by their offset in its 256 MiB. A byte that was not written is a hash of its
/// offset.
#[derive(Clone, Default)]
struct Bytes(Arc<Map>);

#[derive(Default)]
struct Map(Mutex<BTreeMap<u64, u8>>);

impl Map {
    fn get(&self, at: u64) -> u8 {
        let initial = (at ^ at >> 8 ^ at >> 16 ^ at >> 24) as u8;
        self.0.lock().get(&at).copied().unwrap_or(initial)
    }
}

impl Bytes {
    fn space(&self) -> PciConfigSpace {
        let space = PciConfigSpace::default();
        let access = Arc::downgrade(&self.0);
        space.connect(access);
        space
    }
}

fn place(function: PciAddress, offset: u16) -> u64 {
    assert!(offset < 0x1000 && offset.is_multiple_of(4));
    u64::from(function.bus) << 20
        | u64::from(function.device) << 15
        | u64::from(function.function) << 12
        | u64::from(offset)
}

impl PciConfigAccess for Map {
    fn read(&self, function: PciAddress, offset: u16) -> u32 {
        let at = place(function, offset);
        u32::from_le_bytes(std::array::from_fn(|i| self.get(at + i as u64)))
    }

    fn write(&self, function: PciAddress, offset: u16, value: u32, mask: u32) {
        let at = place(function, offset);
        let bytes = value.to_le_bytes().into_iter().zip(mask.to_le_bytes());
        for (i, (value, mask)) in (0..).zip(bytes) {
            match mask {
                0xff => drop(self.0.lock().insert(at + i, value)),
                mask => assert_eq!(mask, 0),
            }
        }
    }
}

fn ports(bytes: &Bytes) -> (ConfigPorts, Arc<Mutex<Vec<PowerEvent>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let received = events.clone();
    let power = PowerSink::new(move |event| received.lock().push(event));
    (ConfigPorts::new(bytes.space(), power), events)
}

fn read<const N: usize>(ports: &mut ConfigPorts, port: u16) -> Result<[u8; N], IoError> {
    let mut data = [0; N];
    ChipsetDevice::read_port(ports, port, &mut data)?;
    Ok(data)
}

fn write(ports: &mut ConfigPorts, port: u16, data: &[u8]) {
    ChipsetDevice::write_port(ports, port, data).expect("the access is valid");
}

#[test]
fn guests_detect_mechanism_1_and_not_mechanism_2() {
    let (mut ports, events) = ports(&Bytes::default());
    // With mechanism #2 these would read as written.
    for port in [0xcfb, 0xcf8, 0xcfa] {
        write(&mut ports, port, &[0]);
        assert_eq!(read(&mut ports, port), Ok([0xff]));
    }
    write(&mut ports, 0xcfb, &[1]);
    write(&mut ports, 0xcf8, &[1, 2]);
    assert_eq!(read(&mut ports, 0xcf8), Ok([0; 4]));
    write(&mut ports, 0xcf8, &0x8000_0000_u32.to_le_bytes());
    assert_eq!(read(&mut ports, 0xcf8), Ok([0, 0, 0, 0x80]));
    write(&mut ports, 0xcf8, &[0xff; 4]);
    assert_eq!(read(&mut ports, 0xcf8), Ok([0xfc, 0xff, 0xff, 0x80]));
    assert_eq!(read(&mut ports, 0xcf8), Ok([0xff; 2]));
    assert_eq!(*events.lock(), []);
}

#[test]
fn the_reset_control_register_resets_on_bit_2() {
    let (mut ports, events) = ports(&Bytes::default());
    write(&mut ports, 0xcf9, &[0xfb]);
    assert_eq!(read(&mut ports, 0xcf9), Ok([0x0a]));
    assert_eq!(*events.lock(), []);
    write(&mut ports, 0xcf8, &[0x06, 0x06]);
    write(&mut ports, 0xcf9, &[0x06, 0x06]);
    assert_eq!(*events.lock(), []);
    for value in [0x04, 0x06, 0x0e] {
        write(&mut ports, 0xcf9, &[value]);
        assert_eq!(std::mem::take(&mut *events.lock()), [PowerEvent::Reset]);
        assert_eq!(read(&mut ports, 0xcf9), Ok([value & 0x0a]));
    }
    let state = ports.save().unwrap();
    ports.reset();
    assert_eq!(read(&mut ports, 0xcf9), Ok([0]));
    ports.restore(&state).unwrap();
    assert_eq!(read(&mut ports, 0xcf9), Ok([0x0a]));
    assert_eq!(*events.lock(), []);
}

#[test]
fn accesses_past_the_data_port_are_refused() {
    let (mut ports, _) = ports(&Bytes::default());
    let refused = Err(IoError::InvalidAccessSize);
    assert_eq!(read::<4>(&mut ports, 0xcfd), refused.map(|()| [0; 4]));
    assert_eq!(read::<2>(&mut ports, 0xcff), refused.map(|()| [0; 2]));
    assert_eq!(
        ChipsetDevice::write_port(&mut ports, 0xcfe, &[0; 4]),
        refused
    );
}

/// An ECAM and the host bridge that moves it.
struct Memory {
    ecam: Ecam,
    bridge: HostBridge,
    reported: Arc<Mutex<Vec<DecodedRanges>>>,
}

impl Memory {
    fn new(bytes: &Bytes) -> Self {
        let reported = Arc::new(Mutex::new(Vec::new()));
        let decoder = {
            let reported = reported.clone();
            AddressDecoder::new(move |ranges| reported.lock().push(ranges))
        };
        let ecam = Ecam::new(bytes.space(), decoder);
        let bridge = HostBridge::new(0xb000_0000, ecam.window()).expect("the layout is valid");
        Self {
            ecam,
            bridge,
            reported,
        }
    }

    fn set_pciexbar(&mut self, low: u32, high: u32) {
        ChipsetDevice::write_config(&mut self.bridge, 0x64, high, u32::MAX)
            .expect("the register exists");
        ChipsetDevice::write_config(&mut self.bridge, 0x60, low, u32::MAX)
            .expect("the register exists");
    }

    fn range(&self) -> Option<RangeInclusive<u64>> {
        let range = self.ecam.window().range();
        let last = self
            .reported
            .lock()
            .last()
            .cloned()
            .expect("a window was reported");
        let mmio: Vec<_> = range.clone().into_iter().collect();
        assert_eq!(last.mmio, mmio, "reported to the chipset");
        range
    }

    fn read<const N: usize>(&mut self, gpa: u64) -> Result<[u8; N], IoError> {
        let mut data = [0; N];
        ChipsetDevice::read_mmio(&mut self.ecam, gpa, &mut data)?;
        Ok(data)
    }
}

#[test]
fn pciexbar_supports_three_sizes() {
    let mut memory = Memory::new(&Bytes::default());
    assert_eq!(memory.range(), Some(0xb000_0000..=0xbfff_ffff));
    for (low, high, range) in [
        (0, 0, None),
        (0xe000_0001, 0, Some(0xe000_0000..=0xefff_ffff)),
        (0xffff_fff9, 0x7f, Some(0xf_f000_0000..=0xf_ffff_ffff)),
        (0xffff_ffff, 0xff, None),
        (0xffff_fffb, 0, Some(0xf800_0000..=0xffff_ffff)),
        (0x8400_0005, 1, Some(0x1_8400_0000..=0x1_87ff_ffff)),
        (0x8400_0004, 1, None),
    ] {
        memory.set_pciexbar(low, high);
        assert_eq!(memory.range(), range, "{low:#x} {high:#x}");
    }
    let read =
        |bridge: &mut HostBridge, offset| ChipsetDevice::read_config(bridge, offset).unwrap();
    assert_eq!(read(&mut memory.bridge, 0x60), 0x8400_0004);
    assert_eq!(read(&mut memory.bridge, 0x64), 1);
    memory.set_pciexbar(0xe000_0001, 0);
    let state = memory.bridge.save().unwrap();
    memory.bridge.reset();
    assert_eq!(memory.range(), Some(0xb000_0000..=0xbfff_ffff));
    memory.bridge.restore(&state).unwrap();
    assert_eq!(memory.range(), Some(0xe000_0000..=0xefff_ffff));
    memory
        .bridge
        .restore(&SavedState::from_bytes(vec![0xa0]))
        .unwrap_err();
    assert_eq!(memory.range(), Some(0xe000_0000..=0xefff_ffff));
}

#[test]
fn a_smaller_window_has_fewer_buses() {
    let mut memory = Memory::new(&Bytes::default());
    memory.set_pciexbar(0x8400_0005, 0);
    assert!(memory.read::<1>(0x87ff_ffff).is_ok());
    let nowhere = Err(IoError::InvalidRegister);
    assert_eq!(memory.read::<1>(0x8800_0000), nowhere);
    assert_eq!(memory.read::<1>(0x83ff_ffff), nowhere);
    memory.set_pciexbar(0, 0);
    assert_eq!(memory.read::<1>(0x8400_0000), nowhere);
}

#[test]
fn the_ecam_has_no_state() {
    let mut memory = Memory::new(&Bytes::default());
    let state = memory.ecam.save().unwrap();
    memory.ecam.restore(&state).unwrap();
    let foreign = SavedState::from_bytes(vec![1]);
    memory.ecam.restore(&foreign).unwrap_err();
    memory.ecam.reset();
    assert_eq!(memory.range(), Some(0xb000_0000..=0xbfff_ffff));
}

proptest! {
    /// Accesses of all sizes reach the right bytes through both mechanisms.
    #[test]
    fn both_mechanisms_reach_the_same_bytes(
        accesses in prop::collection::vec(
            (0_u64..1 << 28, 0_usize..4, prop::option::of(any::<[u8; 8]>()), any::<bool>()),
            1..40,
        ),
    ) {
        let bytes = Bytes::default();
        let (mut ports, _) = ports(&bytes);
        let mut memory = Memory::new(&bytes);
        let mut model = BTreeMap::new();
        let initial = Bytes::default();
        for (at, shape, value, through_ports) in accesses {
            let len = 1 << shape;
            // Few addresses, so that accesses overlap, and those at the ends.
            let at = at & 0xff1_f007 | if at & 8 == 0 { 0xf8 } else { 0 };
            let fits = at % 4 + len <= 4 || len == 8 && at % 8 == 0;
            let through_ports = through_ports && len <= 4;
            let (mut data, len) = ([0; 8], len as usize);
            let port = 0xcfc + (at % 4) as u16;
            if through_ports {
                let address = 1 << 31 | (at >> 4) as u32 & 0xff_ff00 | at as u32 & 0xfc;
                write(&mut ports, 0xcf8, &address.to_le_bytes());
            }
            let gpa = 0xb000_0000 + at;
            let result = match &value {
                Some(value) if through_ports => ports.write_port(port, &value[..len]),
                Some(value) => memory.ecam.write_mmio(gpa, &value[..len]),
                None if through_ports => ports.read_port(port, &mut data[..len]),
                None => memory.ecam.read_mmio(gpa, &mut data[..len]),
            };
            if !fits {
                prop_assert_eq!(result, Err(IoError::InvalidAccessSize));
                continue;
            }
            prop_assert_eq!(result, Ok(()));
            for (at, i) in (at..).zip(0..len) {
                match value {
                    Some(value) => drop(model.insert(at, value[i])),
                    None => {
                        let expected = model.get(&at).copied();
                        prop_assert_eq!(data[i], expected.unwrap_or_else(|| initial.0.get(at)));
                    }
                }
            }
        }
        prop_assert_eq!(&*bytes.0.0.lock(), &model);
    }
}
