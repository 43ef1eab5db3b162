//! The fw_cfg device, by which a VMM hands items to its firmware (QEMU's "Firmware Configuration Device").
//!
//! [`FwCfgBuilder`] collects items: numbered ones and named files, of which the device makes the sorted
//! directory. Their content is in memory or stays in a file of the host, and is never copied on the way to
//! the guest. [`FwCfg`] answers at the selector and data ports, and copies to and from guest memory by DMA.
#![forbid(unsafe_code)]

mod builder;
mod content;
mod device;
mod dma;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod item;
mod kernel;

pub use builder::BuildError;
pub use builder::FwCfgBuilder;
pub use builder::MemoryKind;
pub use content::Content;
pub use device::FwCfg;
pub use item::Item;
pub use kernel::KernelError;

/// Selectors of the numbered items that this crate knows.
pub mod selector {
    /// The bytes `QEMU`.
    pub const SIGNATURE: u16 = 0x00;
    /// A `u32` of feature bits: bit 0 ports, bit 1 DMA.
    pub const FEATURES: u16 = 0x01;
    /// A `u16`: how many VPs run from the start.
    pub const BOOT_CPU_COUNT: u16 = 0x05;
    /// A `u32`: length of [`KERNEL_DATA`] in bytes.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// A `u32`: length of [`INITRD_DATA`] in bytes.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// A `u16`: whether the firmware offers a boot menu.
    pub const BOOT_MENU: u16 = 0x0e;
    /// The kernel without its setup part.
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initial RAM disk.
    pub const INITRD_DATA: u16 = 0x12;
    /// A `u32`: length of [`COMMAND_LINE_DATA`] in bytes, with its final NUL.
    pub const COMMAND_LINE_SIZE: u16 = 0x14;
    /// The kernel's command line, with a final NUL.
    pub const COMMAND_LINE_DATA: u16 = 0x15;
    /// A `u32`: length of [`SETUP_DATA`] in bytes.
    pub const SETUP_SIZE: u16 = 0x17;
    /// The setup part of a kernel in the format of the Linux boot protocol; empty for a plain PE image.
    pub const SETUP_DATA: u16 = 0x18;
    /// The directory of the files.
    pub const DIRECTORY: u16 = 0x19;
    /// The first of the files.
    pub const FIRST_FILE: u16 = 0x20;
    /// The number after the last that a file can have.
    pub const END_OF_FILES: u16 = 0x4000;
}
