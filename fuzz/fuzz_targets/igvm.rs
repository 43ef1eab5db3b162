//! Parses arbitrary bytes as an IGVM file, and loads what is one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loader::fuzzing::igvm(data));
