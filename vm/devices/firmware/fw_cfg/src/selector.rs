//! Selectors of items.

/// The bytes `QEMU`.
pub(crate) const SIGNATURE: u16 = 0x00;
/// A `u32` of feature bits: bit 0 for the ports, bit 1 for DMA.
pub(crate) const FEATURES: u16 = 0x01;
/// A `u16`: the number of VPs at power-on.
pub(crate) const BOOT_CPU_COUNT: u16 = 0x05;
/// A `u32`: length of [`KERNEL_DATA`] in bytes.
pub(crate) const KERNEL_SIZE: u16 = 0x08;
/// A `u32`: length of [`INITRD_DATA`] in bytes.
pub(crate) const INITRD_SIZE: u16 = 0x0b;
/// The kernel without its setup part.
pub(crate) const KERNEL_DATA: u16 = 0x11;
/// The initial RAM disk.
pub(crate) const INITRD_DATA: u16 = 0x12;
/// A `u32`: length of [`COMMAND_LINE_DATA`] in bytes, with its final NUL.
pub(crate) const COMMAND_LINE_SIZE: u16 = 0x14;
/// The kernel's command line, with a final NUL.
pub(crate) const COMMAND_LINE_DATA: u16 = 0x15;
/// A `u32`: length of [`SETUP_DATA`] in bytes.
pub(crate) const SETUP_SIZE: u16 = 0x17;
/// The setup part of a kernel in the format of the Linux boot protocol; empty for a plain PE image.
pub(crate) const SETUP_DATA: u16 = 0x18;
/// The directory of files.
pub(crate) const DIRECTORY: u16 = 0x19;
/// The first file.
pub(crate) const FIRST_FILE: u16 = 0x20;
/// The selector after the last one that a file can have.
pub(crate) const END_OF_FILES: u16 = 0x4000;
