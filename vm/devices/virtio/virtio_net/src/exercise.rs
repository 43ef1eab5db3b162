//! Puts a network device through an arbitrary life, for fuzz targets.

use crate::LinkState;
use crate::MacAddress;
use crate::NetConfig;
use crate::NetDevice;
use crate::cable::Cable;
use virtio::testing::Driver;
use virtio::testing::Machine;

/// Does with a network device what `script` says; see [`virtio::testing::exercise`].
///
/// # Panics
///
/// If the device does, breaks a promise that every device makes, or the host has no sockets.
pub fn exercise(machine: &Machine, script: &[u8]) {
    let (cable, peer) = match Cable::new() {
        Ok(ends) => ends,
        Err(error) => panic!("{error}"),
    };
    let config = NetConfig {
        mac: MacAddress::derive("exercise"),
        mtu: None,
    };
    let device = NetDevice::new(cable, config);
    let link = device.link();
    let mut driver = Driver::new(machine, machine.plug(device));
    let mut received = vec![0; 1 << 17];
    virtio::testing::exercise(&mut driver, script, &mut |choice| match choice % 8 {
        0 => link.set(LinkState::Down),
        1 => link.set(LinkState::Up),
        2 | 3 => while rustix::io::read(&peer, &mut received).is_ok() {},
        _ => {
            // Frames of all sizes; one that the socket has no room for is lost.
            let len = usize::from(choice) * usize::from(choice) + 1;
            let _ = rustix::io::write(&peer, &received[..len]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::exercise::pseudo_random_script;

    #[test]
    fn arbitrary_lives() {
        let machine = Machine::new();
        for seed in 0..200 {
            exercise(&machine, &pseudo_random_script(seed, 1500));
        }
    }
}
