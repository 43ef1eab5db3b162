//! The fw_cfg device, through which a VMM passes items to its firmware (QEMU's "Firmware Configuration Device").
//!
//! [`FwCfgBuilder`] collects items: numbered ones, and named files, for which it builds the sorted directory.
//! Their content is in memory or in a file of the host, which is read when the guest reads the item.
//! [`FwCfg`] emulates the selector and data ports, and copies to and from guest memory by DMA.
#![forbid(unsafe_code)]

mod builder;
mod content;
mod device;
mod dma;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod item;
mod kernel;
mod selector;

pub use builder::FwCfgBuilder;
pub use builder::FwCfgError;
pub use builder::e820_ram_entry;
pub use content::ItemContent;
pub use device::FwCfg;
pub use kernel::KernelItemError;
