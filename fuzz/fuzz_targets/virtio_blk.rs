//! Runs arbitrary operations of a driver on a virtio block device.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| virtio_blk::exercise::run(script));
