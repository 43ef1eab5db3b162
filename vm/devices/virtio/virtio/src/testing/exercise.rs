//! Drives a virtio device with a script of arbitrary operations, valid and invalid, and checks what every device must
//! guarantee.

use crate::testing::GuestDriver;
use crate::testing::Interrupts;
use crate::testing::driver::BAR;
use crate::testing::driver::FREE;
use crate::testing::driver::MSIX_BAR;
use chipset_device::ChipsetDevice;
use chipset_device::SavedState;
use chipset_device::exercise::Script;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

/// Performs the operations of `script` on the driver's device. `outside` makes something happen outside of the
/// machine, chosen by a byte of the script.
///
/// Panics if the device panics, if a state it saved does not restore to the same state, or if a state that it
/// refuses to restore changes it. Does not return if the device does not stop.
pub fn exercise(driver: &mut GuestDriver, script: &[u8], outside: &mut dyn FnMut(u8)) {
    let mut script = Script(script);
    while !script.0.is_empty() {
        match script.byte() % 24 {
            0..=2 => initialize(driver, &mut script),
            3..=8 => add_chain(driver, &mut script),
            9 => scribble(driver, &mut script),
            10..=12 => {
                // Fails if the function does not decode the BAR.
                let gpa = BAR + 0x3000 + 4 * u64::from(script.byte() % 4);
                let _ = ChipsetDevice::write_mmio(&mut driver.device, gpa, &[0, 0]);
            }
            13 | 14 => access_memory(driver, &mut script),
            15 => access_config(driver, &mut script),
            16 => save_and_restore(driver),
            17 => restore_foreign(driver, &mut script),
            18 => {
                driver.device.stop();
                driver.device.start();
            }
            19 => driver.device.reset(),
            20 => drop(driver.device.inspect()),
            21 => {
                while let Some(used) = driver.rings.first_mut().and_then(super::Ring::take_used) {
                    let _ = used;
                    if script.byte() & 1 == 0 {
                        break;
                    }
                }
            }
            _ => outside(script.byte()),
        }
    }
    driver.device.stop();
}

fn initialize(driver: &mut GuestDriver, script: &mut Script<'_>) {
    driver.place_bars();
    driver.next_free = FREE;
    let interrupts = script.choose(&[Interrupts::Polled, Interrupts::Pin, Interrupts::Msix]);
    // The device requires VERSION_1.
    let features = !u64::from(script.u32()) | 1 << 32;
    driver.initialize(features, interrupts);
}

fn add_chain(driver: &mut GuestDriver, script: &mut Script<'_>) {
    let count = driver.rings.len();
    let Some(index) = usize::from(script.byte()).checked_rem(count) else {
        return;
    };
    let mut buffers = Vec::new();
    for _ in 0..=script.byte() % 4 {
        let kind = script.byte();
        let gpa = match kind & 0x1f {
            // Outside of RAM, or across its end.
            0 => (32 << 20) - u64::from(script.byte()),
            1 => script.u64(),
            // Into the rings themselves.
            2 => driver.rings[index].descriptors + u64::from(script.u16()),
            _ => 0x80_0000 + u64::from(script.u16()) * 64,
        };
        let len = match kind >> 5 & 3 {
            0 => script.byte().into(),
            1 => 1536,
            2 => u32::from(script.u16()) * 4,
            _ => 12,
        };
        buffers.push((gpa, len, kind & 0x80 != 0));
    }
    if script.byte() & 7 != 0 {
        // The valid order.
        buffers.sort_by_key(|(_, _, writable)| *writable);
    }
    let ring = &mut driver.rings[index];
    match script.byte() % 8 {
        0 => {
            let table = 0x70_0000 + 64 * u64::from(script.byte());
            ring.add_indirect(table, &buffers);
        }
        1 => ring.add_head(script.u16()),
        _ => {
            ring.add(&buffers);
        }
    }
    ring.publish();
}

/// Overwrites a part of the rings.
fn scribble(driver: &mut GuestDriver, script: &mut Script<'_>) {
    let gpa = FREE + u64::from(script.u16());
    let bytes: [u8; 8] = script.bytes();
    let _ = driver
        .machine
        .memory
        .map()
        .write_slice(&bytes, GuestAddress(gpa));
}

fn access_memory(driver: &mut GuestDriver, script: &mut Script<'_>) {
    let offset = match script.byte() % 4 {
        // The common configuration is small, and most effects are there.
        0 | 1 => u64::from(script.byte() & 0x3f),
        2 => 0x2000 + u64::from(script.byte()),
        _ => script.u16().into(),
    };
    let gpa = script.choose(&[BAR, BAR, BAR, MSIX_BAR]) + offset;
    let len = script.choose(&[1, 2, 4, 8]);
    let mut data: [u8; 8] = script.bytes();
    let device = &mut driver.device;
    let _ = if script.byte() & 1 == 0 {
        ChipsetDevice::read_mmio(device, gpa, &mut data[..len])
    } else {
        ChipsetDevice::write_mmio(device, gpa, &data[..len])
    };
}

fn access_config(driver: &mut GuestDriver, script: &mut Script<'_>) {
    let offset = u16::from(script.byte() & !3);
    let (value, mask) = (
        script.u32(),
        script.choose(&[u32::MAX, 0xff, 0xffff, 0xff00_0000]),
    );
    let _ = ChipsetDevice::write_config(&mut driver.device, offset, value, mask);
    let _ = ChipsetDevice::read_config(&mut driver.device, offset);
}

fn save(driver: &mut GuestDriver) -> SavedState {
    match driver.device.save() {
        Ok(state) => state,
        Err(error) => panic!("the device cannot be saved: {error}"),
    }
}

fn restore_same(driver: &mut GuestDriver) {
    let state = save(driver);
    if let Err(error) = driver.device.restore(&state) {
        panic!("the device refuses its own state: {error}");
    }
    assert_eq!(save(driver), state, "the restored state differs");
}

fn save_and_restore(driver: &mut GuestDriver) {
    driver.device.stop();
    restore_same(driver);
    driver.device.start();
}

fn restore_foreign(driver: &mut GuestDriver, script: &mut Script<'_>) {
    driver.device.stop();
    let before = save(driver);
    let mut bytes = before.as_bytes().to_vec();
    for _ in 0..=script.byte() % 3 {
        let (at, value) = (usize::from(script.u16()), script.byte());
        if let Some(index) = at.checked_rem(bytes.len()) {
            bytes[index] = value;
        }
    }
    match driver.device.restore(&SavedState::from_bytes(bytes)) {
        Ok(()) => restore_same(driver),
        Err(_) => assert_eq!(save(driver), before, "a refused state changed the device"),
    }
    driver.device.start();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MirrorDevice;
    use crate::testing::TestMachine;
    use chipset_device::exercise::pseudo_random_script;

    #[test]
    fn arbitrary_scripts_violate_no_guarantee() {
        let machine = TestMachine::new();
        let (mut chains, mut faults) = (0, 0);
        for seed in 0..300 {
            let device = machine.plug(MirrorDevice::default());
            let mut driver = GuestDriver::new(&machine, device);
            let signals = driver.device.signals().clone();
            exercise(&mut driver, &pseudo_random_script(seed, 1500), &mut |_| {
                signals.config_changed();
            });
            let value = driver.device.inspect();
            chains += value["queues"][0]["chains"].as_u64().unwrap();
            faults += value["faults"].as_u64().unwrap();
        }
        // The scripts must reach both normal operation and faults.
        assert!(chains > 100 && faults > 100, "{chains} {faults}");
    }
}
