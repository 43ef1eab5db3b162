//! Leads a keyboard controller through an arbitrary life.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| chipset::exercise::i8042(script));
