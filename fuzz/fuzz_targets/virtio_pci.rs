//! Runs arbitrary operations on virtio's PCI transport, its queues and a driver.
#![no_main]

use std::cell::LazyCell;
use virtio::testing::Driver;
use virtio::testing::Machine;
use virtio::testing::MirrorDevice;

thread_local! {
    static MACHINE: LazyCell<Machine> = LazyCell::new(Machine::new);
}

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    MACHINE.with(|machine| {
        let device = machine.plug(MirrorDevice::default());
        let mut driver = Driver::new(machine, device);
        virtio::testing::exercise(&mut driver, script, &mut |_| {});
    });
});
