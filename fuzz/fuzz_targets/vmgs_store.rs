//! Opens, reads and writes arbitrary bytes as a VMGS store.
#![no_main]

#[path = "../drivers/vmgs_store.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
