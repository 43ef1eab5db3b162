//! A driver that does anything to a virtio block device.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| virtio_blk::exercise::run(script));
