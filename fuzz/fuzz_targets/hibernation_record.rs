//! Reads arbitrary bytes as the stored firmware of a hibernated guest.
#![no_main]

#[path = "../drivers/hibernation_record.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
