//! Parses arbitrary bytes as firmware images and variables.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| ovmf_image::fuzzing::images(script));
