//! Parses arbitrary bytes as a bzImage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loader::fuzzing::bzimage(data));
