//! Loads arbitrary bytes as the firmware of a generation-2 VM.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loader::fuzzing::msvm(data));
