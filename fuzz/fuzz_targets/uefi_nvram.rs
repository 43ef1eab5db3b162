//! Any bytes as a file of UEFI variables and as what is in them.
#![no_main]

#[path = "../drivers/uefi_nvram.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
