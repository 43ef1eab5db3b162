//! Runs arbitrary operations on a keyboard controller.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| chipset::exercise::i8042(script));
