//! A Q35 with PCI functions whose BARs the guest moves, as firmware and kernels do.

use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::PciAddress;
use chipset_device::PowerEvent;
use chipset_device::PowerSink;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use parking_lot::Mutex;
use pci_core::Bar;
use pci_core::FunctionBuilder;
use pci_core::FunctionState;
use pci_core::HardwareIds;
use pci_core::Location;
use pci_core::PciFunction;
use q35::ConfigPorts;
use q35::Ecam;
use q35::HostBridge;
use q35::IsaBridge;
use state_unit::StateUnit as _;
use std::sync::Arc;
use vmotherboard::Chipset;
use vmotherboard::ChipsetBuilder;

const ECAM: u64 = 0xb000_0000;
const BAR_SIZE: u32 = 0x1000;

/// A function with 4 KiB of registers in BAR 0 and 16 ports in BAR 1. Reads return the lowest byte of the offset
/// and the device's tag.
struct Tagged {
    tag: u8,
    address: PciAddress,
    function: PciFunction,
}

impl Tagged {
    fn new(tag: u8, decoder: AddressDecoder) -> Self {
        let mut builder = FunctionBuilder::new(&HardwareIds {
            vendor: 0x1234,
            device: tag.into(),
            ..HardwareIds::default()
        });
        for (index, bar) in [Bar::Memory32 { size: BAR_SIZE }, Bar::Io { size: 16 }]
            .into_iter()
            .enumerate()
        {
            builder.bar(index, bar).expect("the BARs are valid");
        }
        Self {
            tag,
            address: function_at(tag),
            function: builder.build(decoder),
        }
    }

    fn read_bar(&self, location: Option<Location>, data: &mut [u8]) -> Result<(), IoError> {
        let Some(Location::Bar { offset, .. }) = location else {
            return Err(IoError::InvalidRegister);
        };
        data.fill(self.tag);
        data[0] = offset as u8;
        Ok(())
    }
}

impl ChipsetDevice for Tagged {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::pci(self.address)
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        self.read_bar(self.function.locate_port(port), data)
    }

    fn write_port(&mut self, _port: u16, _data: &[u8]) -> Result<(), IoError> {
        Ok(())
    }

    fn read_mmio(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        self.read_bar(self.function.locate_memory(gpa), data)
    }

    fn write_mmio(&mut self, _gpa: u64, _data: &[u8]) -> Result<(), IoError> {
        Ok(())
    }

    fn read_config(&mut self, offset: u16) -> Result<u32, IoError> {
        Ok(self.function.read_config(offset))
    }

    fn write_config(&mut self, offset: u16, value: u32, mask: u32) -> Result<(), IoError> {
        self.function.write_config(offset, value, mask);
        Ok(())
    }

    fn reset(&mut self) {
        self.function.reset();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.function.save()))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: FunctionState = state.decode()?;
        self.function.restore(&state)
    }

    fn inspect(&self) -> serde_json::Value {
        self.function.inspect()
    }
}

fn function_at(device: u8) -> PciAddress {
    PciAddress {
        bus: 0,
        device,
        function: 0,
    }
}

struct Machine {
    chipset: Chipset,
    resets: Arc<Mutex<usize>>,
}

impl Machine {
    fn new() -> Self {
        let mut builder = ChipsetBuilder::default();
        let resets = Arc::new(Mutex::new(0));
        let counted = resets.clone();
        let power = PowerSink::new(move |event| {
            assert_eq!(event, PowerEvent::Reset);
            *counted.lock() += 1;
        });
        builder.add("config_ports", |context| {
            ConfigPorts::new(context.config_space.clone(), power)
        });
        let ecam = builder.add("ecam", |context| {
            Ecam::new(context.config_space.clone(), context.decoder.clone())
        });
        let window = ecam.lock().window();
        builder.add("host_bridge", |_| {
            HostBridge::new(ECAM, window).expect("the layout is valid")
        });
        builder.add("isa_bridge", |_| {
            IsaBridge::new(0x600).expect("the layout is valid")
        });
        for (name, tag) in [("first", 2), ("second", 3)] {
            builder.add(name, |context| Tagged::new(tag, context.decoder.clone()));
        }
        Self {
            chipset: builder.build().expect("the devices do not conflict"),
            resets,
        }
    }

    fn out(&self, port: u16, data: &[u8]) {
        self.chipset.write_port(port, data);
    }

    fn select(&self, device: u8, register: u8) {
        let address = 0x8000_0000 | u32::from(device) << 11 | u32::from(register);
        self.out(0xcf8, &(address & !3).to_le_bytes());
    }

    fn read_through_ports<const N: usize>(&self, device: u8, register: u8) -> [u8; N] {
        self.select(device, register);
        let mut data = [0; N];
        let port = 0xcfc + u16::from(register & 3);
        self.chipset.read_port(port, &mut data);
        data
    }

    fn write_through_ports(&self, device: u8, register: u8, data: &[u8]) {
        self.select(device, register);
        self.out(0xcfc + u16::from(register & 3), data);
    }

    fn read_memory<const N: usize>(&self, gpa: u64) -> [u8; N] {
        let mut data = [0; N];
        self.chipset.read_mmio(gpa, &mut data);
        data
    }

    fn write_config(&self, device: u8, register: u16, value: u32) {
        let gpa = ECAM + (u64::from(device) << 15) + u64::from(register);
        self.chipset.write_mmio(gpa, &value.to_le_bytes());
    }
}

#[test]
fn firmware_finds_the_bridges_and_the_pm_ports() {
    let machine = Machine::new();
    // Which chipset it is, and that the PM ports are set up.
    assert_eq!(machine.read_through_ports(0, 2), [0xc0, 0x29]);
    assert_eq!(machine.read_through_ports::<1>(0x1f, 0x44)[0] & 0x80, 0x80);
    let pm_base = machine.read_through_ports(0x1f, 0x40);
    assert_eq!(u32::from_le_bytes(pm_base), 0x601);
    // A bridge to ISA that decodes: class, command.
    assert_eq!(machine.read_through_ports(0x1f, 0x09), [0x00, 0x01, 0x06]);
    assert_eq!(machine.read_through_ports::<1>(0x1f, 0x04)[0] & 3, 3);
    // Interrupt routes and RCBA, a byte and a double word.
    machine.write_through_ports(0x1f, 0x6b, &[0x0b]);
    assert_eq!(machine.read_through_ports(0x1f, 0x6b), [0x0b]);
    assert_eq!(machine.read_through_ports(0x1f, 0x6a), [0x80]);
    machine.write_through_ports(0x1f, 0xf0, &0xfed1_c001_u32.to_le_bytes());
    let rcba = machine.read_through_ports(0x1f, 0xf0);
    assert_eq!(u32::from_le_bytes(rcba), 0xfed1_c001);
    // Nothing at another device, and nothing while the address port is not enabled.
    assert_eq!(machine.read_through_ports(1, 0), [0xff; 4]);
    machine.out(0xcf8, &0_u32.to_le_bytes());
    let mut data = [0; 2];
    machine.chipset.read_port(0xcfe, &mut data);
    assert_eq!(data, [0xff; 2]);
    assert_eq!(*machine.resets.lock(), 0);
    machine.out(0xcf9, &[0x02]);
    assert_eq!(*machine.resets.lock(), 0);
    machine.out(0xcf9, &[0x06]);
    assert_eq!(*machine.resets.lock(), 1);
}

#[test]
fn firmware_moves_configuration_space() {
    let machine = Machine::new();
    assert_eq!(machine.read_memory(ECAM + 2), [0xc0, 0x29]);
    let both = machine.read_memory::<8>(ECAM + (0x1f << 15));
    assert_eq!(both[..4], [0x86, 0x80, 0x18, 0x29]);
    assert_eq!(both[4..6], [7, 0]);
    // Function 1 of bus 255.
    assert_eq!(machine.read_memory(ECAM + 0xfff_9000), [0xff; 4]);
    assert_eq!(machine.chipset.unclaimed().mmio_reads, 0);

    let moved = 0xe000_0000;
    machine.write_through_ports(0, 0x60, &[0; 4]);
    assert_eq!(machine.read_memory(ECAM), [0xff; 4]);
    assert_eq!(machine.chipset.unclaimed().mmio_reads, 1);
    machine.write_through_ports(0, 0x64, &[0; 4]);
    machine.write_through_ports(0, 0x60, &(moved | 1_u32).to_le_bytes());
    assert_eq!(machine.read_memory(moved.into()), [0x86, 0x80, 0xc0, 0x29]);
    // Moved by a write through the window itself.
    machine
        .chipset
        .write_mmio(u64::from(moved) + 0x60, &0xc000_0001_u32.to_le_bytes());
    assert_eq!(machine.read_memory(moved.into()), [0xff; 2]);
    assert_eq!(machine.read_memory(0xc000_0002), [0xc0, 0x29]);
}

#[test]
fn bars_are_sized_and_placed() {
    let machine = Machine::new();
    for (device, base) in [(2, 0xc000_0000), (3, 0xc000_1000)] {
        machine.write_config(device, 0x10, u32::MAX);
        let size = machine.read_through_ports(device, 0x10);
        assert_eq!(u32::from_le_bytes(size), !(BAR_SIZE - 1));
        machine.write_config(device, 0x14, u32::MAX);
        let size = machine.read_through_ports(device, 0x14);
        assert_eq!(u32::from_le_bytes(size), !15 | 1);
        machine.write_config(device, 0x10, base);
        machine.write_config(device, 0x14, 0x6000 + u32::from(device) * 0x10);
        let gpa = u64::from(base) + 0x20;
        assert_eq!(machine.read_memory(gpa), [0xff; 2], "not enabled yet");
        machine.write_config(device, 0x04, 3);
        assert_eq!(machine.read_memory(gpa), [0x20, device]);
        let mut data = [0; 2];
        let port = 0x6000 + u16::from(device) * 0x10;
        machine.chipset.read_port(port + 5, &mut data);
        assert_eq!(data, [5, device]);
    }
    // Overlapping BARs: accesses go to the device added first, and to the other one once the first is disabled.
    machine.write_config(3, 0x10, 0xc000_0000);
    assert_eq!(machine.read_memory(0xc000_0000), [0, 2]);
    machine.write_config(2, 0x04, 0);
    assert_eq!(machine.read_memory(0xc000_0000), [0, 3]);
    // A BAR that overlaps configuration space, which was added before.
    machine.write_config(3, 0x10, ECAM as u32);
    assert_eq!(machine.read_memory(ECAM), [0x86, 0x80]);
    machine.write_config(3, 0x10, 0xc000_3000);
    assert_eq!(machine.read_memory(0xc000_3001), [1, 3]);
}

#[test]
fn restored_bars_are_routed() {
    let machine = Machine::new();
    machine.write_config(2, 0x10, 0xc000_0000);
    machine.write_config(2, 0x04, 2);
    machine.write_through_ports(0, 0x60, &0xe000_0001_u32.to_le_bytes());
    let states: Vec<_> = machine
        .chipset
        .devices()
        .map(|(_, mut device)| device.save().unwrap())
        .collect();

    let other = Machine::new();
    for ((_, mut device), state) in other.chipset.devices().zip(&states) {
        device.restore(state).unwrap();
    }
    assert_eq!(other.read_memory(0xc000_0004), [4, 2]);
    assert_eq!(other.read_memory(0xe000_0002), [0xc0, 0x29]);
    for (_, mut device) in other.chipset.devices() {
        device.reset().unwrap();
    }
    assert_eq!(other.read_memory(0xc000_0004), [0xff; 2]);
    assert_eq!(other.read_memory(0xe000_0002), [0xff; 2]);
    assert_eq!(other.read_memory(ECAM + 2), [0xc0, 0x29]);
}

/// Configuration accesses hold two locks, and moving a BAR takes a third one. Accesses to other addresses always
/// reach their device.
#[test]
fn vps_move_bars_while_others_access_them() {
    let machine = Machine::new();
    machine.write_config(3, 0x10, 0xc010_0000);
    machine.write_config(3, 0x04, 2);
    machine.write_config(2, 0x04, 2);
    std::thread::scope(|scope| {
        let machine = &machine;
        scope.spawn(move || {
            for i in 0..2000 {
                machine.write_config(2, 0x10, 0xc000_0000 + i % 7 * BAR_SIZE);
            }
        });
        scope.spawn(move || {
            for i in 0..2000 {
                machine.write_through_ports(3, 0x3c, &[i as u8]);
                let command = 2_u16 | (i % 2);
                let gpa = ECAM + (2 << 15) + 0x04;
                machine.chipset.write_mmio(gpa, &command.to_le_bytes());
            }
        });
        for _ in 0..2 {
            scope.spawn(move || {
                for i in 0..2000_u64 {
                    let gpa = 0xc000_0000 + i % 7 * u64::from(BAR_SIZE);
                    let data: [u8; 2] = machine.read_memory(gpa);
                    assert!([[0, 2], [0xff; 2]].contains(&data), "{data:?}");
                    assert_eq!(machine.read_memory(0xc010_0007), [7, 3]);
                    assert_eq!(machine.read_memory(ECAM + 2), [0xc0, 0x29]);
                }
            });
        }
    });
}

/// Moving configuration space locks a configuration mechanism and the host bridge, and so does reading the host
/// bridge through the other mechanism.
#[test]
fn vps_move_configuration_space_while_others_use_it() {
    let machine = Machine::new();
    std::thread::scope(|scope| {
        let machine = &machine;
        scope.spawn(move || {
            for i in 0..2000_u32 {
                let base = [0xe000_0001, 0xb000_0001][i as usize % 2];
                machine.write_through_ports(0, 0x60, &u32::to_le_bytes(base));
            }
        });
        for base in [ECAM, 0xe000_0000] {
            scope.spawn(move || {
                for _ in 0..2000 {
                    let ids: [u8; 4] = machine.read_memory(base);
                    let there = [0x86, 0x80, 0xc0, 0x29];
                    assert!([there, [0xff; 4]].contains(&ids), "{ids:x?}");
                    // Moves it by a write through the window itself, if it is at `base`.
                    machine
                        .chipset
                        .write_mmio(base + 0x60, &0xe000_0001_u32.to_le_bytes());
                }
            });
        }
    });
    machine.write_through_ports(0, 0x60, &0xb000_0001_u32.to_le_bytes());
    assert_eq!(machine.read_memory(ECAM + 2), [0xc0, 0x29]);
}
