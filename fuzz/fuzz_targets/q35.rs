//! Leads the bridges and configuration mechanisms of a Q35 through arbitrary lives.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| q35::exercise::q35(script));
