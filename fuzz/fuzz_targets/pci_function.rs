//! Runs arbitrary operations on a PCI function.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| pci_core::exercise::pci_function(script));
