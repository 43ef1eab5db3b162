//! The parts of a Q35 chipset that a guest finds its machine by: bridges and PCI configuration access.
//!
//! The devices look like Intel's 82Q35 memory controller hub (data sheet 316966) and I/O controller hub 9
//! (data sheet 316972), as far as software that runs on virtual machines depends on them. Firmware of the
//! OVMF family is such software; what it depends on is this:
//!
//! | Device | Register | Use |
//! |---|---|---|
//! | host bridge | 0x02 device id | decides that this is a Q35, and so which of the other registers exist |
//! | | 0x60 PCIEXBAR | cleared, then set to where the firmware wants configuration space in memory: 0xB0000000 in builds up to 2022, 0xE0000000 later; used for all accesses from then on |
//! | ISA bridge | 0x44 ACPI_CNTL | bit 7 says that the PM ports are set up, in every phase that needs the time; set here from the start, so firmware leaves 0x40 alone |
//! | | 0x40 PMBASE | where the PM timer and the PM1 control register (to enable the SCI, to power off) are; bit 0 reads 1 |
//! | | 0x60-0x63, 0x68-0x6B PIRQ routes | written, never read; interrupts do not go this way here |
//! | | 0xF0 RCBA | written; there is nothing at the address, which reads all ones |
//! | | class code, command | the serial ports are looked for behind an ISA bridge that decodes I/O and memory |
//! | both bridges | command | I/O, memory and bus mastering must read as enabled after they were written so |
//! | ports | 0xCF8, 0xCFC | configuration access before PCIEXBAR is set, and in run-time services |
//! | | 0xCF9 | 0x06 resets the machine |
//!
//! Builds with SMM additionally need SMRAM, an SMI port and more of both bridges, which do not exist here.
//! The SMRAM control registers of the host bridge only remember.
//!
//! Linux reads the same PM registers from the ISA bridge to keep the ports from being given to a device, and
//! the ranges at 0x84 to 0x90, which are empty until somebody writes them.
#![forbid(unsafe_code)]

mod config_ports;
mod ecam;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod handle;
mod host_bridge;
mod isa_bridge;

pub use config_ports::ConfigPorts;
pub use config_ports::RESET_CONTROL;
pub use config_ports::RESET_SYSTEM;
pub use ecam::Ecam;
pub use ecam::EcamWindow;
pub use handle::ConfigPortsHandle;
pub use handle::EcamHandle;
pub use handle::HostBridgeHandle;
pub use handle::IsaBridgeHandle;
pub use host_bridge::HostBridge;
pub use isa_bridge::IsaBridge;

#[cfg(test)]
mod bridge_test;
#[cfg(test)]
mod config_test;
