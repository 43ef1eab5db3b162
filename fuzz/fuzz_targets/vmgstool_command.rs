//! Runs commands of vmgstool on an arbitrary store.
#![no_main]

#[path = "../drivers/vmgstool_command.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
