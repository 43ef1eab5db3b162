//! Drives a device with a script of arbitrary operations, and checks what every device must guarantee.

use crate::ChipsetDevice;
use crate::DecodedRanges;
use crate::SavedState;

/// Reads a script byte by byte; past its end it reads zeros.
pub struct Script<'a>(pub &'a [u8]);

impl Script<'_> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// The next two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    /// The next four bytes, little-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    /// The next eight bytes, little-endian.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// One of `choices`, which must not be empty, chosen by the next byte.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    fn vec(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte());
        (0..len).map(|_| self.byte()).collect()
    }

    /// An address in one of `ranges` or just after it.
    fn address(&mut self, ranges: &[(u64, u64)]) -> Option<u64> {
        let index = usize::from(self.byte()).checked_rem(ranges.len())?;
        let (start, end) = ranges[index];
        let offset = u64::from(u16::from_le_bytes(self.bytes())) % (end - start).saturating_add(1);
        Some(start + offset)
    }
}

/// Performs the operations of `script` on `device`: accesses of all sizes to its fixed resources, polls,
/// resets, stops and starts, saves and restores. `outside` makes something happen outside of the device
/// (time passes, input arrives), chosen by a byte of the script.
///
/// Panics if the device panics, if a state it saved does not restore to the same state, or if a state that it
/// refuses to restore changes it.
pub fn exercise(device: &mut dyn ChipsetDevice, script: &[u8], outside: &mut dyn FnMut(u8)) {
    exercise_with_bars(device, script, &DecodedRanges::default, outside);
}

/// As [`exercise`], with accesses also to the ranges that the device currently decodes, which `decoded` returns.
pub fn exercise_with_bars(
    device: &mut dyn ChipsetDevice,
    script: &[u8],
    decoded: &dyn Fn() -> DecodedRanges,
    outside: &mut dyn FnMut(u8),
) {
    let fixed = device.fixed_resources();
    let ports = || -> Vec<_> {
        let ranges = fixed.ports.iter().cloned().chain(decoded().ports);
        ranges
            .map(|r| ((*r.start()).into(), (*r.end()).into()))
            .collect()
    };
    let mmio = || -> Vec<_> {
        let ranges = fixed.mmio.iter().cloned().chain(decoded().mmio);
        ranges.map(|r| (*r.start(), *r.end())).collect()
    };
    let mut script = Script(script);
    device.start();
    while !script.0.is_empty() {
        match script.byte() % 16 {
            0..=3 => port_access(device, &mut script, &ports()),
            4..=6 => mmio_access(device, &mut script, &mmio()),
            7 => device.poll(),
            8 => config_access(device, &mut script),
            9..=11 => outside(script.byte()),
            12 => save_and_restore(device),
            13 => restore_foreign(device, &mut script),
            14 => device.reset(),
            _ => drop(device.inspect()),
        }
    }
    device.stop();
}

fn port_access(device: &mut dyn ChipsetDevice, script: &mut Script<'_>, ports: &[(u64, u64)]) {
    let Some(address) = script.address(ports) else {
        return;
    };
    let port = address as u16;
    let shape = script.byte();
    let len = [1, 1, 2, 4][usize::from(shape & 3)];
    let mut data: [u8; 4] = script.bytes();
    // The device may refuse the access.
    let _ = if shape & 4 == 0 {
        device.read_port(port, &mut data[..len])
    } else {
        device.write_port(port, &data[..len])
    };
}

fn mmio_access(device: &mut dyn ChipsetDevice, script: &mut Script<'_>, mmio: &[(u64, u64)]) {
    let Some(gpa) = script.address(mmio) else {
        return;
    };
    let shape = script.byte();
    let len = [1, 2, 4, 8][usize::from(shape & 3)];
    let mut data: [u8; 8] = script.bytes();
    let _ = if shape & 4 == 0 {
        device.read_mmio(gpa, &mut data[..len])
    } else {
        device.write_mmio(gpa, &data[..len])
    };
}

fn config_access(device: &mut dyn ChipsetDevice, script: &mut Script<'_>) {
    if device.fixed_resources().pci.is_none() {
        // A device without a configuration space is polled instead.
        return device.poll();
    }
    // Mostly the first 256 bytes, which conventional functions have.
    let offset = match script.byte() {
        byte @ ..0xf8 => u16::from(byte & 0x3f) * 4,
        byte => u16::from(byte) * 16,
    };
    let shape = script.byte();
    let mask = [0xff << (shape & 0x18), 0xffff << (shape & 0x10), u32::MAX][usize::from(shape % 3)];
    let value = u32::from_le_bytes(script.bytes());
    let _ = if shape & 0x80 == 0 {
        device.read_config(offset).map(|_| ())
    } else {
        device.write_config(offset, value, mask)
    };
}

fn save(device: &mut dyn ChipsetDevice) -> SavedState {
    match device.save() {
        Ok(state) => state,
        Err(error) => panic!("the device cannot be saved: {error}"),
    }
}

fn save_and_restore(device: &mut dyn ChipsetDevice) {
    device.stop();
    let state = save(device);
    if let Err(error) = device.restore(&state) {
        panic!("the device refuses its own state: {error}");
    }
    assert_eq!(save(device), state, "the restored state differs");
    device.start();
}

/// Restores an arbitrary state: the device's own with some bytes changed, or noise.
fn restore_foreign(device: &mut dyn ChipsetDevice, script: &mut Script<'_>) {
    device.stop();
    let before = save(device);
    let mut bytes = if script.byte() & 1 == 0 {
        script.vec()
    } else {
        before.as_bytes().to_vec()
    };
    for _ in 0..script.byte() % 4 {
        let (at, value) = (usize::from(script.byte()), script.byte());
        if let Some(index) = at.checked_rem(bytes.len()) {
            bytes[index] = value;
        }
    }
    match device.restore(&SavedState::from_bytes(bytes)) {
        Ok(()) => {
            let after = save(device);
            if let Err(error) = device.restore(&after) {
                panic!("the device refuses its own state: {error}");
            }
            assert_eq!(save(device), after, "the restored state differs");
        }
        Err(_) => assert_eq!(save(device), before, "a failed restore changed the device"),
    }
    device.start();
}

/// A script of `len` bytes derived from `seed`, for tests without a fuzzer.
pub fn pseudo_random_script(seed: u64, len: usize) -> Vec<u8> {
    // SplitMix64.
    let mut state = seed;
    let words = std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    });
    words.flat_map(u64::to_le_bytes).take(len).collect()
}
