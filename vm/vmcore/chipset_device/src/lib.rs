//! The contract between a device and the chipset that routes guest accesses to it.
//!
//! A device is a plain struct behind one lock. The chipset calls it on the thread of the VP that made
//! the access. Everything else that concerns the device (a timer expires, input arrives) goes
//! through its [`DeviceWaker`], which takes the same lock and calls [`ChipsetDevice::poll`].
#![forbid(unsafe_code)]

mod config_space;
mod decoder;
mod device;
mod doorbell;
#[cfg(feature = "fuzzing")]
pub mod exercise;
mod handle;
mod interrupt;
mod io;
mod medium;
mod msi;
mod power;
mod rom;
mod services;
mod waker;

pub use config_space::PciConfigAccess;
pub use config_space::PciConfigSpace;
pub use decoder::AddressDecoder;
pub use decoder::DecodedRanges;
pub use device::ChipsetDevice;
pub use device::FixedResources;
pub use device::PciAddress;
pub use doorbell::Doorbell;
pub use doorbell::DoorbellAddress;
pub use doorbell::DoorbellMatch;
pub use doorbell::DoorbellTarget;
pub use handle::BuildResult;
pub use handle::DeviceHandle;
pub use handle::MachineContext;
pub use handle::NoPciSlot;
pub use handle::PciSlotContext;
pub use handle::SharedDevice;
pub use handle::shared;
pub use interrupt::LineError;
pub use interrupt::LineInterrupt;
pub use interrupt::LineTarget;
pub use io::IoError;
pub use medium::MediumError;
pub use medium::MediumInfo;
pub use mesh::saved_state::RestoreError;
pub use mesh::saved_state::SaveError;
pub use mesh::saved_state::SavedState;
pub use msi::MsiMessage;
pub use msi::MsiTarget;
pub use msi::MsiVector;
pub use power::PowerEvent;
pub use power::PowerSink;
pub use rom::RomMapping;
pub use services::InterruptLines;
pub use services::MissingService;
pub use services::Services;
pub use services::VpCount;
pub use waker::DeviceWaker;
