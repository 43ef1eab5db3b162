//! The address-routed chipset: who answers which port, MMIO range and PCI function.
#![forbid(unsafe_code)]
