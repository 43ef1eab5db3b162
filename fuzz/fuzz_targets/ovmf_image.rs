//! Looks at what may be firmware or its variables.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| ovmf_image::fuzzing::images(script));
