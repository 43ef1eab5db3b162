//! Decodes and compares arbitrary bytes as a stored platform view.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| platform_digest::exercise::decode(bytes));
