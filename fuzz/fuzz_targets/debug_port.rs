//! Runs arbitrary operations on a debug port.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| chipset::exercise::debug_port(script));
