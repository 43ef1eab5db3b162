//! Leads a sleep port through an arbitrary life.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| sleep_port::exercise::sleep_port(script));
