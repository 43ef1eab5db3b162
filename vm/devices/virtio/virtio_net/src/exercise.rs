//! Drives a network device with a script of arbitrary operations, for fuzz targets.

use crate::LinkState;
use crate::MacAddress;
use crate::NetConfig;
use crate::NetDevice;
use crate::socket_backend::SocketBackend;
use virtio::testing::GuestDriver;
use virtio::testing::TestMachine;

/// Performs the operations of `script` on a network device; see [`virtio::testing::exercise`].
///
/// # Panics
///
/// If the device panics or violates a guarantee of devices, or the host has no sockets.
pub fn exercise(machine: &TestMachine, script: &[u8]) {
    let (backend, peer) = match SocketBackend::new() {
        Ok(ends) => ends,
        Err(error) => panic!("{error}"),
    };
    let config = NetConfig {
        mac: MacAddress::derive("exercise"),
        mtu: None,
    };
    let device = NetDevice::new(backend, config);
    let link = device.link();
    let mut driver = GuestDriver::new(machine, machine.plug(device));
    let mut received = vec![0; 1 << 17];
    virtio::testing::exercise(&mut driver, script, &mut |choice| match choice % 8 {
        0 => drop(link.set(LinkState::Down)),
        1 => drop(link.set(LinkState::Up)),
        2 | 3 => while rustix::io::read(&peer, &mut received).is_ok() {},
        _ => {
            // Frames of all sizes; one is lost if the socket is full.
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
    fn arbitrary_scripts_violate_no_guarantee() {
        let machine = TestMachine::new();
        for seed in 0..200 {
            exercise(&machine, &pseudo_random_script(seed, 1500));
        }
    }
}
