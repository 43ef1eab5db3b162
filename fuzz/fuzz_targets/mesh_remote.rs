//! A process that sends anything over the socket of a channel.
#![no_main]

#[path = "../drivers/mesh_remote.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    driver::run(data);
});
