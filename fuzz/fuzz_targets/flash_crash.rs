//! Loses power at every point of writes to flash.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| flash::exercise::crash(script));
