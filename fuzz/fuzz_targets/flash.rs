//! Leads flash chips through arbitrary lives.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| flash::exercise::flash(script));
