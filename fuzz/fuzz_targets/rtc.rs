//! Leads an RTC through an arbitrary life.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| chipset::exercise::rtc(script));
