//! Structures and numbers of the UEFI specification, and of the device through which Hyper-V's UEFI firmware asks its
//! host for services. Shared by hosts and guests.
//!
//! All structures are little-endian, without padding, as they are in guest memory.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod bios_device;
pub mod guid;
mod status;
mod time;
pub mod variable;

pub use status::EfiStatus;
pub use time::EfiTime;
