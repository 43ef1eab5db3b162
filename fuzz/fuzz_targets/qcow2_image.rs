//! Opens, reads and writes arbitrary bytes as a qcow2 image.
#![no_main]

#[path = "../drivers/qcow2_image.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
