//! Decodes arbitrary bytes as a message, and as the saved units of a VM.
#![no_main]

#[path = "../drivers/mesh_payload.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
