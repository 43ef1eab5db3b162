//! Starts variable services with an arbitrary file, and sets variables to arbitrary data.
#![no_main]

#[path = "../drivers/uefi_variables.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
