//! Runs arbitrary operations on a virtio network device, its driver and its network.
#![no_main]

use std::cell::LazyCell;
use virtio::testing::TestMachine;

thread_local! {
    static MACHINE: LazyCell<TestMachine> = LazyCell::new(TestMachine::new);
}

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    MACHINE.with(|machine| virtio_net::exercise::exercise(machine, script));
});
