use crate::Chipset;
use crate::ChipsetBuilder;
use crate::Conflict;
use chipset_device::ChipsetDevice;
use chipset_device::DeviceWaker;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use proptest::prelude::*;
use state_unit::StateUnit as _;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Reads return its tag. Records all calls.
struct Probe {
    tag: u8,
    resources: FixedResources,
    waker: Option<DeviceWaker>,
    polls: usize,
    started: bool,
    accesses: Vec<(u64, Vec<u8>)>,
}

impl Probe {
    fn new(tag: u8, resources: FixedResources) -> Self {
        Self {
            tag,
            resources,
            waker: None,
            polls: 0,
            started: false,
            accesses: Vec::new(),
        }
    }

    fn at_ports(tag: u8, ports: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        Self::new(
            tag,
            FixedResources {
                ports: ports.into_iter().collect(),
                ..FixedResources::default()
            },
        )
    }

    fn read(&mut self, address: u64, data: &mut [u8]) -> Result<(), IoError> {
        self.accesses.push((address, Vec::new()));
        if data.len() > 2 {
            data[0] = 0x55;
            return Err(IoError::InvalidAccessSize);
        }
        data.fill(self.tag);
        Ok(())
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), IoError> {
        self.accesses.push((address, data.to_vec()));
        Ok(())
    }
}

impl ChipsetDevice for Probe {
    fn fixed_resources(&self) -> FixedResources {
        self.resources.clone()
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        self.read(port.into(), data)
    }

    fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), IoError> {
        self.write(port.into(), data)
    }

    fn read_mmio(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        self.read(gpa, data)
    }

    fn write_mmio(&mut self, gpa: u64, data: &[u8]) -> Result<(), IoError> {
        self.write(gpa, data)
    }

    fn read_config(&mut self, offset: u16) -> Result<u32, IoError> {
        Ok(u32::from(self.tag) << 16 | u32::from(offset))
    }

    fn write_config(&mut self, offset: u16, value: u32, mask: u32) -> Result<(), IoError> {
        self.write(offset.into(), &(value & mask).to_le_bytes())
    }

    fn poll(&mut self) {
        self.polls += 1;
    }

    fn start(&mut self) {
        self.started = true;
    }

    fn stop(&mut self) {
        self.started = false;
    }

    fn reset(&mut self) {
        self.accesses.clear();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.tag))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        self.tag = state.decode()?;
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        self.tag.into()
    }
}

fn port(chipset: &Chipset, port: u16) -> u8 {
    let mut data = [0];
    chipset.read_port(port, &mut data);
    data[0]
}

#[test]
fn accesses_reach_the_device_that_claims_the_address() {
    let mut builder = ChipsetBuilder::default();
    let a = builder.add("a", |_| Probe::at_ports(1, [0x10..=0x17, 0x30..=0x30]));
    let function = PciAddress {
        bus: 0,
        device: 3,
        function: 0,
    };
    let mut space = PciConfigSpace::default();
    let b = builder.add("b", |context| {
        space = context.config_space.clone();
        Probe::new(
            2,
            FixedResources {
                ports: vec![0x18..=0x18],
                mmio: vec![0xfec0_0000..=0xfec0_0fff],
                pci: Some(function),
            },
        )
    });
    let chipset = builder.build().unwrap();
    assert_eq!(port(&chipset, 0x0f), 0xff);
    assert_eq!(port(&chipset, 0x10), 1);
    assert_eq!(port(&chipset, 0x17), 1);
    assert_eq!(port(&chipset, 0x18), 2);
    assert_eq!(port(&chipset, 0x19), 0xff);
    assert_eq!(port(&chipset, 0x30), 1);
    a.lock().accesses.clear();
    chipset.write_port(0x30, &[1, 2]);
    assert_eq!(a.lock().accesses, [(0x30, vec![1, 2])]);

    let mut data = [0; 2];
    chipset.read_mmio(0xfec0_0ffe, &mut data);
    assert_eq!(data, [2, 2]);
    b.lock().accesses.clear();
    chipset.write_mmio(0xfec0_0000, &[7]);
    assert_eq!(b.lock().accesses, [(0xfec0_0000, vec![7])]);

    assert_eq!(space.read(function, 8), 0x0002_0008);
    space.write(function, 4, 0x1234_5678, 0xffff);
    assert_eq!(
        b.lock().accesses.last().unwrap().1,
        0x5678_u32.to_le_bytes()
    );
    let absent = PciAddress {
        function: 1,
        ..function
    };
    assert_eq!(space.read(absent, 0), u32::MAX);
    space.write(absent, 0, 0, 0);
}

#[test]
fn unclaimed_reads_return_all_ones_and_are_counted() {
    let mut builder = ChipsetBuilder::default();
    builder.ignore_ports(0x20..=0x21);
    builder.ignore_ports(0x21..=0x22);
    let chipset = builder.build().unwrap();
    let mut data = [0; 4];
    chipset.read_port(0x20, &mut data);
    assert_eq!(data, [0xff; 4]);
    chipset.write_port(0x80, &[0]);
    let mut data = [0; 8];
    chipset.read_mmio(0, &mut data);
    assert_eq!(data, [0xff; 8]);
    chipset.write_mmio(u64::MAX, &data);
    chipset.write_mmio(u64::MAX, &data);
    let counts = chipset.unclaimed();
    assert_eq!((counts.port_reads, counts.port_writes), (1, 1));
    assert_eq!((counts.mmio_reads, counts.mmio_writes), (1, 2));
}

#[test]
fn an_access_past_the_end_of_a_range_reaches_the_device_as_a_whole() {
    let mut builder = ChipsetBuilder::default();
    let a = builder.add("a", |_| Probe::at_ports(1, [0x10..=0x11]));
    let b = builder.add("b", |_| Probe::at_ports(2, [0x12..=0x13]));
    let chipset = builder.build().unwrap();
    let mut data = [0; 4];
    chipset.read_port(0x11, &mut data);
    // The device changed the buffer before it returned an error.
    assert_eq!(data, [0xff; 4]);
    assert_eq!(a.lock().accesses, [(0x11, vec![])]);
    chipset.read_port(0x0f, &mut data);
    assert_eq!(a.lock().accesses.len(), 1);
    assert_eq!(b.lock().accesses, []);
}

#[test]
fn all_conflicts_are_reported() {
    let function = PciAddress {
        bus: 0,
        device: 1,
        function: 0,
    };
    let resources = |port: u16, gpa: u64| FixedResources {
        ports: vec![port..=port + 7],
        mmio: vec![gpa..=gpa + 0xfff],
        pci: Some(function),
    };
    let mut builder = ChipsetBuilder::default();
    builder.add("com1", |_| Probe::new(0, resources(0x3f8, 0x1000)));
    builder.add("dbg", |_| Probe::new(0, resources(0x3ff, 0x1800)));
    builder.add("com1", |_| {
        Probe::at_ports(0, [0x400..=0x401, RangeInclusive::new(9, 8)])
    });
    let error = builder.build().err().unwrap();
    let (com1, dbg) = (String::from("com1"), String::from("dbg"));
    assert_eq!(
        error.conflicts,
        [
            Conflict::Ports {
                first: com1.clone(),
                second: dbg.clone(),
                ports: 0x3ff..=0x3ff,
            },
            Conflict::Mmio {
                first: com1.clone(),
                second: dbg.clone(),
                range: 0x1800..=0x1fff,
            },
            Conflict::Pci {
                first: com1.clone(),
                second: dbg.clone(),
                function,
            },
            Conflict::Name { name: com1.clone() },
            Conflict::Ports {
                first: dbg,
                second: com1.clone(),
                ports: 0x400..=0x401,
            },
            Conflict::EmptyRange {
                device: com1,
                start: 9,
            },
        ]
    );
    let text = error.to_string();
    assert!(
        text.contains("`com1` and `dbg` both claim ports 0x3ff-0x3ff"),
        "{text}"
    );
    assert!(text.contains("memory 0x1800-0x1fff"), "{text}");
}

#[test]
fn waking_polls_a_device_only_while_it_is_running() {
    let mut builder = ChipsetBuilder::default();
    let device = builder.add("a", |context| Probe {
        waker: Some(context.waker.clone()),
        ..Probe::at_ports(1, [])
    });
    let waker = device.lock().waker.clone().unwrap();
    let chipset = builder.build().unwrap();
    let mut handles: Vec<_> = chipset.devices().collect();
    let (name, handle) = &mut handles[0];
    assert_eq!(*name, "a");
    waker.wake();
    assert_eq!(device.lock().polls, 0);
    handle.start();
    assert!(device.lock().started);
    assert_eq!(device.lock().polls, 1, "polled at start");
    waker.wake();
    assert_eq!(device.lock().polls, 2);
    handle.stop();
    waker.wake();
    assert!(!device.lock().started);
    assert_eq!(device.lock().polls, 2);

    let state = handle.save().unwrap();
    device.lock().tag = 9;
    handle.restore(&state).unwrap();
    assert_eq!(handle.inspect(), 1);
    handle
        .restore(&SavedState::from_bytes(vec![0xff]))
        .unwrap_err();
    device.lock().accesses.push((0, vec![]));
    handle.reset().unwrap();
    assert_eq!(device.lock().accesses, []);
}

#[test]
fn a_waker_does_not_keep_the_device_alive() {
    let mut builder = ChipsetBuilder::default();
    let device = builder.add("a", |context| Probe {
        waker: Some(context.waker.clone()),
        ..Probe::at_ports(1, [])
    });
    let weak = Arc::downgrade(&device);
    let waker = device.lock().waker.clone().unwrap();
    drop(builder.build().unwrap());
    drop(device);
    assert!(weak.upgrade().is_none());
    waker.wake();
}

#[test]
fn vps_access_devices_in_parallel() {
    let mut builder = ChipsetBuilder::default();
    builder.add("a", |_| Probe::at_ports(1, [0..=0]));
    builder.add("b", |_| Probe::at_ports(2, [1..=1]));
    let chipset = builder.build().unwrap();
    std::thread::scope(|scope| {
        for number in 0..4_u16 {
            let chipset = &chipset;
            scope.spawn(move || {
                for _ in 0..1000 {
                    assert_eq!(port(chipset, number & 1), (number & 1) as u8 + 1);
                }
            });
        }
    });
}

proptest! {
    #[test]
    fn a_chipset_is_built_exactly_when_no_two_ranges_overlap(
        ports in prop::collection::vec((0_u16..200, 0_u16..12), 1..12),
    ) {
        let mut builder = ChipsetBuilder::default();
        let ranges: Vec<_> = ports.iter().map(|(start, len)| *start..=start + len).collect();
        for (i, range) in ranges.iter().enumerate() {
            builder.add(format!("d{i}"), |_| Probe::at_ports(i as u8, [range.clone()]));
        }
        let pairs = || (0..ranges.len()).flat_map(|i| (0..i).map(move |j| (j, i)));
        let overlapping = pairs()
            .filter(|(j, i)| ranges[*j].clone().any(|port| ranges[*i].contains(&port)))
            .count();
        match builder.build() {
            Ok(chipset) => {
                prop_assert_eq!(overlapping, 0);
                for address in 0..256 {
                    let owner = ranges.iter().position(|range| range.contains(&address));
                    prop_assert_eq!(port(&chipset, address), owner.map_or(0xff, |i| i as u8));
                }
            }
            Err(error) => prop_assert_eq!(error.conflicts.len(), overlapping),
        }
    }
}
