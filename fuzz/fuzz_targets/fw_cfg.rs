//! Runs arbitrary operations on a fw_cfg device, with DMA.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| fw_cfg::exercise::fw_cfg(script));
