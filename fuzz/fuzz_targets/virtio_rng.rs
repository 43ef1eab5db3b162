//! Runs arbitrary operations on a virtio entropy device and its driver.
#![no_main]

use std::cell::LazyCell;
use virtio::testing::GuestDriver;
use virtio::testing::TestMachine;
use virtio_rng::EntropyDevice;
use virtio_rng::EntropyRate;

thread_local! {
    static MACHINE: LazyCell<TestMachine> = LazyCell::new(TestMachine::new);
}

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    MACHINE.with(|machine| {
        let device = machine.plug(EntropyDevice::new(EntropyRate::default()));
        let mut driver = GuestDriver::new(machine, device);
        virtio::testing::exercise(&mut driver, script, &mut |_| {});
    });
});
