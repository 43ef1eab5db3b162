//! The address-routed chipset: who answers which port, MMIO range and PCI function.
//!
//! A [`ChipsetBuilder`] takes the devices of a machine, checks that no two claim the same address, and
//! builds a [`Chipset`]. VP threads hand it the accesses that trap. The lookup takes no lock; the access
//! itself holds the one lock of the device it goes to.
//!
//! Beside its claims, a device answers addresses that the guest chose (those of its PCI BARs), and says which
//! through its [`DeviceContext::decoder`]. Claims take precedence over them, and among them those of the
//! device added first. What is covered by something else is not lost: it is answered again once the other
//! one is gone.
//!
//! Guests reach PCI configuration spaces through devices too. Such a device holds its own lock while the
//! function it accesses is locked, in this order. No thread takes these locks the other way round, since
//! only devices without a function use a [`DeviceContext::pci_config_space`].
//!
//! An access belongs to the device that claims its first byte, even if it runs past the end of the claim:
//! the device sees the whole access and answers [`chipset_device::IoError::InvalidAccessSize`] if it
//! cannot take it. An access that begins outside of all claims is nobody's, even if it runs into one.
#![forbid(unsafe_code)]

mod builder;
mod chipset;
mod device_errors;
mod functions;
mod handle;
mod route_table;
mod routes;

pub use builder::BuildError;
pub use builder::ChipsetBuilder;
pub use builder::Conflict;
pub use builder::DeviceContext;
pub use chipset::Chipset;
pub use chipset::UnclaimedCounts;
pub use handle::DeviceHandle;

#[cfg(test)]
mod chipset_test;
#[cfg(test)]
mod decoder_test;
#[cfg(test)]
mod routes_test;
