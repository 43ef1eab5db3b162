//! Leads a PCI function through an arbitrary life.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| pci_core::exercise::pci_function(script));
