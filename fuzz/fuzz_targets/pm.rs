//! Runs arbitrary operations on a PM block.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| chipset::exercise::pm(script));
