//! Runs arbitrary operations on a pvpanic device.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| chipset::exercise::pvpanic(script));
