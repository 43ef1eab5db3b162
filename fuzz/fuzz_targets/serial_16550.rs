//! Runs arbitrary operations on a UART.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| serial_16550::exercise::serial_16550(script));
