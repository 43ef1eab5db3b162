//! Leads a pvpanic device through an arbitrary life.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| chipset::exercise::pvpanic(script));
