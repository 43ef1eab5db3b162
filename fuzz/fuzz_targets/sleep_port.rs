//! Runs arbitrary operations on a sleep port.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| sleep_port::exercise::sleep_port(script));
