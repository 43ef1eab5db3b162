//! Any bytes as a VMGS store that is opened, read and written.
#![no_main]

#[path = "../drivers/vmgs_store.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
