//! Runs arbitrary operations on virtio's PCI transport, its queues and a driver.
#![no_main]

use std::cell::LazyCell;
use virtio::testing::GuestDriver;
use virtio::testing::MirrorDevice;
use virtio::testing::TestMachine;

thread_local! {
    static MACHINE: LazyCell<TestMachine> = LazyCell::new(TestMachine::new);
}

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    MACHINE.with(|machine| {
        let device = machine.plug(MirrorDevice::default());
        let mut driver = GuestDriver::new(machine, device);
        virtio::testing::exercise(&mut driver, script, &mut |_| {});
    });
});
