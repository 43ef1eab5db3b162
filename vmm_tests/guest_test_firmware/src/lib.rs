//! The test firmware: starts as the firmware of Hyper-V's generation-2 VMs does, and reports on its serial port whether
//! its machine is as such firmware expects.
//!
//! It runs without SSE and x87, which not every KVM emulates, and without `core::fmt`, whose compiled code uses them.
//! What is in this library depends on no hardware.
#![cfg_attr(not(test), no_std)]

pub mod acpi;
pub mod blob;
pub mod bytes;
pub mod memory_types;
pub mod report;

/// Where the machine loads the image.
pub const IMAGE_BASE: u64 = 0x10_0000;

/// The text that has the image's version: its last three digits. Who makes another version of an image changes them.
pub const VERSION_TEXT: [u8; 21] = *b"test firmware no. 001";
