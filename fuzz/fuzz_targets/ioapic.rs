//! Runs arbitrary operations on an I/O APIC.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| chipset::exercise::ioapic(script));
