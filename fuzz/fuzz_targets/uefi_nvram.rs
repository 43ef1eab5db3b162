//! Decodes arbitrary bytes as a file of UEFI variables and as the structures in it.
#![no_main]

#[path = "../drivers/uefi_nvram.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
