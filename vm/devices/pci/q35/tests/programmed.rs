//! Finding the BARs that firmware programmed.

use chipset_device::PciAddress;
use chipset_device::PciConfigAccess;
use chipset_device::PciConfigSpace;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Registers of functions, by device, function and offset.
struct Functions(BTreeMap<(u8, u8, u16), u32>);

impl PciConfigAccess for Functions {
    fn read(&self, address: PciAddress, offset: u16) -> u32 {
        let (device, function) = (address.device, address.function);
        if address.bus != 0 || !self.0.contains_key(&(device, function, 0)) {
            return u32::MAX;
        }
        let register = self.0.get(&(device, function, offset));
        register.copied().unwrap_or(0)
    }

    fn write(&self, address: PciAddress, offset: u16, value: u32, _: u32) {
        panic!("{value:#x} is written to {address} {offset:#x}");
    }
}

#[test]
fn memory_bars_of_all_functions_are_found() {
    let space = PciConfigSpace::default();
    assert!(q35::memory_bars(&space).is_empty());
    let functions: Arc<dyn PciConfigAccess> = Arc::new(Functions(BTreeMap::from([
        // A single function: 64-bit, 32-bit, ports, unassigned.
        ((1, 0, 0), 0x1041_1af4),
        ((1, 0, 0x10), 0x0000_000c),
        ((1, 0, 0x14), 0x0000_00e0),
        ((1, 0, 0x18), 0x8000_0000),
        ((1, 0, 0x1c), 0x0000_6001),
        // Not there: the function before it is alone.
        ((1, 1, 0), 0x1041_1af4),
        ((1, 1, 0x10), 0x9000_0000),
        // Several functions, with a gap.
        ((2, 0, 0), 0x1041_1af4),
        ((2, 0, 0x0c), 1 << 23),
        ((2, 3, 0), 0x1041_1af4),
        ((2, 3, 0x24), 0x8000_1000),
        // A bridge: its windows are no BARs.
        ((3, 0, 0), 0x29c0_8086),
        ((3, 0, 0x0c), 1 << 16),
        ((3, 0, 0x14), 0x8000_2000),
        ((3, 0, 0x20), 0xfff0_fff0),
        // A 64-bit BAR whose high half is not a BAR register.
        ((31, 0, 0), 0x29c0_8086),
        ((31, 0, 0x24), 0x8000_3004),
        ((31, 0, 0x28), 0xffff_ffff),
    ])));
    space.connect(Arc::downgrade(&functions));
    assert_eq!(
        q35::memory_bars(&space),
        [
            0x8000_0000,
            0x8000_1000,
            0x8000_2000,
            0x8000_3000,
            0xe0_0000_0000
        ]
    );
}
