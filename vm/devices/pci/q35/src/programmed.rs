//! What firmware programmed.

use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;

const HEADER_TYPE: u16 = 0x0c;
const MULTIFUNCTION: u32 = 1 << 23;
const BAR0: u16 = 0x10;

/// The bits of a BAR register.
const SPACE_IO: u32 = 1 << 0;
const TYPE_64: u32 = 0b100;
const TYPE: u32 = 0b110;
const ATTRIBUTES: u64 = 0xf;

/// The number of BAR registers of a function with this header type; bridges have two.
fn bar_registers(header_type: u32) -> u16 {
    match header_type >> 16 & 0x7f {
        0 => 6,
        1 => 2,
        _ => 0,
    }
}

/// The guest-physical addresses in the memory BARs of the functions on bus 0, ascending, whether or not the functions
/// decode them at the moment: firmware turns decoding off after it has assigned addresses.
pub fn memory_bars(space: &PciConfigSpace) -> Vec<u64> {
    let mut bars = Vec::new();
    for device in 0..32 {
        for function in 0..8 {
            let address = PciAddress {
                bus: 0,
                device,
                function,
            };
            if space.read(address, 0) == u32::MAX {
                if function == 0 {
                    break;
                }
                continue;
            }
            let header_type = space.read(address, HEADER_TYPE);
            bars.extend(function_bars(space, address, bar_registers(header_type)));
            if function == 0 && header_type & MULTIFUNCTION == 0 {
                break;
            }
        }
    }
    bars.sort_unstable();
    bars
}

fn function_bars(space: &PciConfigSpace, address: PciAddress, registers: u16) -> Vec<u64> {
    let register = |index: u16| space.read(address, BAR0 + index * 4);
    let mut bars = Vec::new();
    let mut index = 0;
    while index < registers {
        let low = register(index);
        index += 1;
        if low & SPACE_IO != 0 {
            continue;
        }
        let mut base = u64::from(low);
        if low & TYPE == TYPE_64 && index < registers {
            base |= u64::from(register(index)) << 32;
            index += 1;
        }
        base &= !ATTRIBUTES;
        if base != 0 {
            bars.push(base);
        }
    }
    bars
}
