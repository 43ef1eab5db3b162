//! Parses arbitrary bytes as an ELF kernel.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loader::fuzzing::elf(data));
