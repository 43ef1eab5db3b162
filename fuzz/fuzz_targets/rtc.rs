//! Runs arbitrary operations on an RTC.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| chipset::exercise::rtc(script));
