//! Cuts off what flash makes durable at every point.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| flash::exercise::crash(script));
