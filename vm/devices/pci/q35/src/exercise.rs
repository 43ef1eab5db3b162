//! Drives the devices with a script of arbitrary operations, for fuzzing and tests.

use crate::ConfigPorts;
use crate::Ecam;
use crate::HostBridge;
use crate::IsaBridge;
use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::DecodedRanges;
use chipset_device::PciAddress;
use chipset_device::PciConfigAccess;
use chipset_device::PciConfigSpace;
use chipset_device::PowerSink;
use chipset_device::exercise::exercise;
use chipset_device::exercise::exercise_with_bars;
use parking_lot::Mutex;
use std::sync::Arc;

/// The configuration spaces of the bridges.
struct Bridges(Mutex<(HostBridge, IsaBridge)>);

impl PciConfigAccess for Bridges {
    fn read(&self, function: PciAddress, offset: u16) -> u32 {
        check(function, offset);
        let (host, isa) = &mut *self.0.lock();
        let value = match function {
            HostBridge::ADDRESS => Some(host.read_config(offset)),
            IsaBridge::ADDRESS => Some(isa.read_config(offset)),
            _ => None,
        };
        value.and_then(Result::ok).unwrap_or(u32::MAX)
    }

    fn write(&self, function: PciAddress, offset: u16, value: u32, mask: u32) {
        check(function, offset);
        let (host, isa) = &mut *self.0.lock();
        // The bridge may refuse the access.
        let _ = match function {
            HostBridge::ADDRESS => Some(host.write_config(offset, value, mask)),
            IsaBridge::ADDRESS => Some(isa.write_config(offset, value, mask)),
            _ => None,
        };
    }
}

/// Checks what a configuration mechanism must guarantee.
fn check(function: PciAddress, offset: u16) {
    assert!(function.device < 32 && function.function < 8, "{function}");
    assert!(
        offset < 0x1000 && offset.is_multiple_of(4),
        "register {offset:#x}"
    );
}

/// Both bridges behind both configuration mechanisms, or a bridge alone.
pub fn q35(script: &[u8]) {
    let Some((choice, script)) = script.split_first() else {
        return;
    };
    let window = Arc::new(Mutex::new(DecodedRanges::default()));
    let reported = window.clone();
    let decoder = AddressDecoder::new(move |ranges| *reported.lock() = ranges);
    let space = PciConfigSpace::default();
    let mut ecam = Ecam::new(space.clone(), decoder);
    let (Ok(mut host), Ok(mut isa)) = (
        HostBridge::new(0xb000_0000, ecam.window()),
        IsaBridge::new(0x600),
    ) else {
        panic!("the layout of a bridge is invalid");
    };
    match choice % 4 {
        0 => exercise(&mut host, script, &mut |_| ()),
        1 => exercise(&mut isa, script, &mut |_| ()),
        2 => {
            let bridges = Arc::new(Bridges(Mutex::new((host, isa))));
            let access = Arc::downgrade(&bridges);
            space.connect(access);
            let power = PowerSink::new(|_| ());
            let mut ports = ConfigPorts::new(space, power);
            exercise(&mut ports, script, &mut |_| ());
        }
        _ => {
            let bridges = Arc::new(Bridges(Mutex::new((host, isa))));
            let access = Arc::downgrade(&bridges);
            space.connect(access);
            let decoded = || window.lock().clone();
            exercise_with_bars(&mut ecam, script, &decoded, &mut |_| ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::exercise::pseudo_random_script;

    #[test]
    fn survives_random_scripts() {
        for seed in 0..400 {
            let mut script = pseudo_random_script(seed, 1500);
            script[0] = seed as u8;
            q35(&script);
        }
    }
}
