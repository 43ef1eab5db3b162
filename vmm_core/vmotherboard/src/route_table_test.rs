use crate::ChipsetBuilder;
use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::DecodedRanges;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;
use proptest::prelude::*;
use std::ops::RangeInclusive;

/// Reads return its tag. A write moves all of its decoded ranges there, with the device locked.
struct Mover {
    tag: u8,
    resources: FixedResources,
    decoder: AddressDecoder,
}

impl Mover {
    fn new(tag: u8, ports: Vec<RangeInclusive<u16>>, decoder: AddressDecoder) -> Self {
        let mmio = ports.iter().map(wide).collect();
        let resources = FixedResources {
            ports,
            mmio,
            pci: None,
        };
        Self {
            tag,
            resources,
            decoder,
        }
    }
}

/// The addresses at the end of the address space that correspond to ports in the tests.
fn wide(ports: &RangeInclusive<u16>) -> RangeInclusive<u64> {
    let gpa = |port: &u16| u64::MAX - u64::from(u16::MAX - *port);
    gpa(ports.start())..=gpa(ports.end())
}

fn decodes(ports: Vec<RangeInclusive<u16>>) -> DecodedRanges {
    let mmio = ports.iter().map(wide).collect();
    DecodedRanges { ports, mmio }
}

impl ChipsetDevice for Mover {
    fn fixed_resources(&self) -> FixedResources {
        self.resources.clone()
    }

    fn read_port(&mut self, _port: u16, data: &mut [u8]) -> Result<(), IoError> {
        data.fill(self.tag);
        Ok(())
    }

    fn write_port(&mut self, _port: u16, data: &[u8]) -> Result<(), IoError> {
        let port = u16::from_le_bytes([data[0], data[1]]);
        self.decoder.set(decodes(vec![port..=port]));
        Ok(())
    }

    fn read_mmio(&mut self, _gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        data.fill(self.tag);
        Ok(())
    }

    fn write_mmio(&mut self, _gpa: u64, _data: &[u8]) -> Result<(), IoError> {
        Ok(())
    }

    fn read_config(&mut self, _offset: u16) -> Result<u32, IoError> {
        Ok(self.tag.into())
    }

    fn write_config(&mut self, _offset: u16, value: u32, mask: u32) -> Result<(), IoError> {
        self.tag = (value & mask) as u8;
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

#[test]
fn a_device_can_move_its_ranges_during_an_access() {
    let mut builder = ChipsetBuilder::default();
    builder.add("mover", |context| {
        let decoder = context.decoder.clone();
        // Stored until the chipset is built.
        decoder.set(decodes(vec![0x10..=0x11]));
        Mover::new(7, Vec::new(), decoder)
    });
    let chipset = builder.build().unwrap();
    let port = |port| {
        let mut data = [0];
        chipset.read_port(port, &mut data);
        data[0]
    };
    assert_eq!((port(0x0f), port(0x10), port(0x11)), (0xff, 7, 7));
    chipset.write_port(0x11, &0x20_u16.to_le_bytes());
    assert_eq!((port(0x10), port(0x20), port(0x21)), (0xff, 7, 0xff));
}

#[test]
fn a_decoder_outlives_its_chipset() {
    let mut builder = ChipsetBuilder::default();
    let mut decoder = None;
    let device = builder.add("mover", |context| {
        decoder = Some(context.decoder.clone());
        Mover::new(1, Vec::new(), context.decoder.clone())
    });
    drop(builder.build().unwrap());
    let weak = std::sync::Arc::downgrade(&device);
    drop(device);
    assert!(weak.upgrade().is_none());
    decoder.unwrap().set(decodes(vec![1..=2]));
}

#[test]
fn the_configuration_space_is_connected_when_the_chipset_is_built() {
    let function = PciAddress {
        bus: 1,
        device: 2,
        function: 3,
    };
    let mut builder = ChipsetBuilder::default();
    let mut space = PciConfigSpace::default();
    builder.add("mechanism", |context| {
        space = context.config_space.clone();
        Mover::new(1, Vec::new(), context.decoder.clone())
    });
    builder.add("function", |context| {
        let mut device = Mover::new(2, Vec::new(), context.decoder.clone());
        device.resources.pci = Some(function);
        device
    });
    assert_eq!(space.read(function, 0), u32::MAX);
    space.write(function, 0, 5, u32::MAX);
    let chipset = builder.build().unwrap();
    assert_eq!(space.read(function, 0), 2);
    space.write(function, 0, 0x105, 0xff);
    assert_eq!(space.read(function, 0), 5);
    let absent = PciAddress { bus: 0, ..function };
    assert_eq!(space.read(absent, 0), u32::MAX);
    drop(chipset);
    assert_eq!(space.read(function, 0), u32::MAX);
}

const LIMIT: u16 = 48;

fn ranges() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    // Some are empty.
    prop::collection::vec((0..LIMIT, 0..LIMIT).prop_map(|(a, b)| a..=b), 0..4)
}

/// Fixed ranges of devices: cut points, every third gap between them is claimed.
fn fixed_ranges() -> impl Strategy<Value = Vec<Vec<RangeInclusive<u16>>>> {
    prop::collection::btree_set(0..LIMIT, 0..12).prop_map(|cuts| {
        let cuts: Vec<_> = cuts.into_iter().collect();
        let mut fixed = vec![Vec::new(); 4];
        for (device, cut) in cuts.chunks_exact(3).enumerate() {
            fixed[(device * 3 + 1) % 4].push(cut[0]..=cut[1]);
        }
        fixed
    })
}

proptest! {
    /// An access goes to the device that claims the address, otherwise to the first one that decodes it.
    #[test]
    fn routing_equals_a_linear_search(
        fixed in fixed_ranges(),
        early in prop::collection::vec(ranges(), 4),
        moves in prop::collection::vec((0_usize..4, ranges()), 0..12),
    ) {
        let mut builder = ChipsetBuilder::default();
        let mut decoders = Vec::new();
        for (device, ports) in fixed.iter().enumerate() {
            builder.add(format!("{device}"), |context| {
                let decoder = context.decoder.clone();
                decoder.set(decodes(early[device].clone()));
                decoders.push(decoder.clone());
                Mover::new(device as u8, ports.clone(), decoder)
            });
        }
        let chipset = builder.build().unwrap();
        let mut decoded = early;
        let mut moves = moves.into_iter();
        loop {
            let covers = |ranges: &Vec<RangeInclusive<u16>>, port| {
                ranges.iter().any(|range| range.contains(&port))
            };
            for port in 0..LIMIT + 1 {
                let claimant = fixed.iter().position(|ranges| covers(ranges, port));
                let owner = claimant.or_else(|| decoded.iter().position(|r| covers(r, port)));
                let expected = owner.map_or(0xff, |device| device as u8);
                let mut data = [0];
                chipset.read_port(port, &mut data);
                prop_assert_eq!(data[0], expected, "port {}", port);
                chipset.read_mmio(*wide(&(port..=port)).start(), &mut data);
                prop_assert_eq!(data[0], expected, "memory {}", port);
            }
            let Some((device, ranges)) = moves.next() else {
                break;
            };
            decoders[device].set(decodes(ranges.clone()));
            decoded[device] = ranges;
        }
    }
}
