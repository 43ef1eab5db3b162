//! The address-routed chipset: routes port, MMIO and PCI configuration accesses to devices.
//!
//! A [`ChipsetBuilder`] collects the devices of a machine, checks that no two claim the same address, and
//! builds a [`Chipset`]. VP threads pass it the accesses that trap. The lookup takes no lock; the access
//! itself locks only the device it is routed to.
//!
//! In addition to its fixed resources, a device decodes ranges that the guest programmed (its PCI BARs), and
//! reports them through its [`DeviceContext::decoder`]. Fixed resources take precedence over decoded ranges, and
//! among these the range of the device added first does. A range that is hidden by another one is routed again
//! once the other one is gone.
//!
//! Guests access PCI configuration space through devices too. Such a device is locked first and then the
//! function that it accesses. No thread takes these locks in the opposite order, because only devices without a
//! function use [`DeviceContext::pci_config_space`].
//!
//! An access is routed by its first byte, even if it extends past the end of the range: the device gets the whole
//! access and returns [`chipset_device::IoError::InvalidAccessSize`] if it does not support it. An access that
//! starts outside of all ranges is unclaimed, even if it extends into one.
#![forbid(unsafe_code)]

mod attached_device;
mod builder;
mod chipset;
mod device_errors;
mod functions;
mod route_table;
mod routes;

pub use attached_device::AttachedDevice;
pub use builder::ChipsetBuilder;
pub use builder::ChipsetError;
pub use builder::Conflict;
pub use builder::DeviceContext;
pub use chipset::Chipset;
pub use chipset::UnclaimedCounts;
