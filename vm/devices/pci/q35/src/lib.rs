//! The bridges and the PCI configuration access of a Q35 chipset.
//!
//! The devices emulate Intel's 82Q35 memory controller hub (data sheet 316966) and I/O controller hub 9
//! (data sheet 316972), as far as guest software depends on them. Firmware of the OVMF family depends on:
//!
//! | Device | Register | Use |
//! |---|---|---|
//! | host bridge | 0x02 device id | identifies a Q35, which determines the other registers |
//! | | 0x60 PCIEXBAR | cleared, then set to the address of the ECAM: 0xB0000000 in builds up to 2022, 0xE0000000 later; used for all accesses after that |
//! | ISA bridge | 0x44 ACPI_CNTL | bit 7 means that the PM ports are set up. Every phase that needs the time checks it. It is always set here, so firmware does not write 0x40 |
//! | | 0x40 PMBASE | address of the PM timer and the PM1 control register (to enable the SCI, to power off); bit 0 reads 1 |
//! | | 0x60-0x63, 0x68-0x6B PIRQ routes | written, never read; they do not route interrupts here |
//! | | 0xF0 RCBA | written; there are no registers at the address, which reads all ones |
//! | | class code, command | firmware looks for serial ports behind an ISA bridge that decodes I/O and memory |
//! | both bridges | command | I/O, memory and bus mastering must read as enabled after they were enabled |
//! | ports | 0xCF8, 0xCFC | configuration access before PCIEXBAR is set, and in run-time services |
//! | | 0xCF9 | 0x06 resets the machine |
//!
//! Builds with SMM additionally need SMRAM, an SMI port and further registers of both bridges, which are not
//! implemented. The SMRAM control registers of the host bridge are stored and have no effect.
//!
//! Linux reads the same PM registers from the ISA bridge to reserve their ports, and the port ranges at 0x84 to 0x90,
//! which are empty unless the guest writes them.
#![forbid(unsafe_code)]

mod config_ports;
mod ecam;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod handle;
mod host_bridge;
mod isa_bridge;
mod programmed;

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
pub use programmed::memory_bars;
