//! Parses arbitrary bytes as ELF notes with a PVH entry.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loader::fuzzing::pvh_notes(data));
