//! Runs arbitrary operations on flash chips.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| flash::exercise::flash(script));
