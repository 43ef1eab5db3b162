//! The registers of the bridges.

use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::PciConfigSpace;
use q35::Ecam;
use q35::HostBridge;
use q35::IsaBridge;

fn host_bridge() -> HostBridge {
    let ecam = Ecam::new(PciConfigSpace::default(), AddressDecoder::detached());
    HostBridge::new(0xb000_0000, ecam.window()).expect("the layout is valid")
}

fn read(bridge: &mut dyn ChipsetDevice, offset: u16) -> u32 {
    bridge.read_config(offset).expect("the register exists")
}

fn write(bridge: &mut dyn ChipsetDevice, offset: u16, value: u32) {
    bridge
        .write_config(offset, value, u32::MAX)
        .expect("the register exists");
}

/// Registers that are not 0, with their values at reset and after ones were written to all bits.
fn registers(bridge: &mut dyn ChipsetDevice) -> Vec<(u16, u32, u32)> {
    let offsets = (0..0x100).step_by(4);
    let values: Vec<_> = offsets
        .map(|offset| {
            let reset = read(bridge, offset);
            write(bridge, offset, u32::MAX);
            (offset, reset, read(bridge, offset))
        })
        .collect();
    let state = bridge.save().expect("it has a state");
    bridge.reset();
    for (offset, reset, _) in &values {
        assert_eq!(read(bridge, *offset), *reset, "register {offset:#x}");
    }
    bridge.restore(&state).expect("it is its own state");
    for (offset, _, written) in &values {
        assert_eq!(read(bridge, *offset), *written, "register {offset:#x}");
    }
    let exists = |(_, reset, written): &(u16, u32, u32)| *reset != 0 || *written != 0;
    values.into_iter().filter(exists).collect()
}

#[test]
fn host_bridge_registers() {
    assert_eq!(
        registers(&mut host_bridge()),
        [
            (0x00, 0x29c0_8086, 0x29c0_8086),
            (0x04, 0x0000_0007, 0x0000_0007),
            (0x08, 0x0600_0002, 0x0600_0002),
            (0x0c, 0x0000_0000, 0x0000_ffff),
            (0x3c, 0x0000_0000, 0x0000_00ff),
            (0x60, 0xb000_0001, 0xfc00_0007),
            (0x64, 0x0000_0000, 0x0000_000f),
            (0x90, 0x0000_0000, 0x3333_3330),
            (0x94, 0x0000_0000, 0x0033_3333),
            (0x9c, 0x0038_0200, 0x00bf_7a00),
        ]
    );
}

#[test]
fn isa_bridge_registers() {
    assert_eq!(
        registers(&mut IsaBridge::new(0x600).unwrap()),
        [
            (0x00, 0x2918_8086, 0x2918_8086),
            (0x04, 0x0000_0007, 0x0000_0007),
            (0x08, 0x0601_0002, 0x0601_0002),
            (0x0c, 0x0000_0000, 0x0000_ffff),
            (0x3c, 0x0000_0000, 0x0000_00ff),
            (0x40, 0x0000_0601, 0x0000_0601),
            (0x44, 0x0000_0080, 0x0000_0080),
            (0x60, 0x8080_8080, 0x8f8f_8f8f),
            (0x64, 0x0000_0010, 0x0000_00d3),
            (0x68, 0x8080_8080, 0x8f8f_8f8f),
            (0x80, 0x0000_0000, 0x3fff_1377),
            (0x84, 0x0000_0000, 0x00fc_fffd),
            (0x88, 0x0000_0000, 0x00fc_fffd),
            (0x8c, 0x0000_0000, 0x00fc_fffd),
            (0x90, 0x0000_0000, 0x00fc_fffd),
            (0xa0, 0x0000_0000, 0x0000_001f),
            (0xa4, 0x0000_0000, 0x0000_0001),
            (0xf0, 0x0000_0000, 0xffff_c001),
        ]
    );
}

#[test]
fn a_bridge_refuses_the_state_of_the_other() {
    let state = host_bridge().save().unwrap();
    let mut isa = IsaBridge::new(0x600).unwrap();
    isa.restore(&state).unwrap_err();
    let other = IsaBridge::new(0x400).unwrap().save().unwrap();
    let error = isa.restore(&other).unwrap_err();
    assert!(error.to_string().contains("register 0x40"), "{error}");
}
