//! Runs arbitrary operations on the Q35's bridges and configuration mechanisms.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| q35::exercise::q35(script));
