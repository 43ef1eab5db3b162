//! Devices as plain data, and what a machine gives a device that is built from it.

use crate::AddressDecoder;
use crate::ChipsetDevice;
use crate::DeviceWaker;
use crate::InterruptLines;
use crate::LineInterrupt;
use crate::MediumError;
use crate::MediumInfo;
use crate::MissingService;
use crate::PciAddress;
use crate::PciConfigSpace;
use crate::Services;
use crate::VpCount;
use minicbor::Decode;
use minicbor::Encode;
use parking_lot::Mutex;
use std::any::Any;
use std::error::Error;
use std::sync::Arc;
use uuid::Uuid;

/// A device as plain data: its kind, how it is configured, and how it is built from that. It is encoded with numbered
/// fields, so that it can be stored, and sent to another process.
pub trait DeviceHandle: Encode<()> + for<'b> Decode<'b, ()> + Send + Sync + 'static {
    /// The kind of device. It is stored with the encoded handle: never changed, and never used for another kind.
    const ID: &'static str;

    /// What of the device called `name` in the VM `vm` a hibernated or snapshotted guest relies on, beside its name and
    /// its PCI address; `None` if to the guest it is a part of every machine.
    ///
    /// Stored with hibernated guests, so its text never changes.
    fn identity(&self, _name: &str, _vm: Uuid) -> Option<String> {
        None
    }

    /// The medium of a storage device as it is now, before the device is built. Nothing is changed.
    fn medium(&self) -> Result<Option<MediumInfo>, MediumError> {
        Ok(None)
    }

    /// The number of MSI-X vectors of the device in a machine with `vps` VPs.
    fn msi_vectors(&self, _vps: VpCount) -> u32 {
        0
    }

    /// Builds the device.
    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult;
}

/// A device as the chipset holds it.
pub type SharedDevice = Arc<Mutex<dyn ChipsetDevice>>;

/// `device`, as the chipset holds it.
pub fn shared(device: impl ChipsetDevice) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

/// A device, or why it cannot be built. Who builds it knows its name, and puts it before the error.
pub type BuildResult = Result<SharedDevice, Box<dyn Error + Send + Sync>>;

/// What a machine gives one device.
pub struct MachineContext<'a> {
    /// The device's name in the VM.
    pub name: &'a str,
    /// The VM's identity, for what is derived from it.
    pub vm: Uuid,
    /// The place of a PCI function; `None` for a device that has fixed addresses.
    pub pci_slot: Option<PciSlotContext>,
    /// Makes the chipset poll the device.
    pub waker: DeviceWaker,
    /// Tells the chipset which addresses the device answers beside its fixed ones.
    pub decoder: AddressDecoder,
    /// The configuration space of all PCI functions.
    pub config_space: PciConfigSpace,
    /// What the machine and the devices built earlier offer. A device may add to it.
    pub services: &'a mut Services,
}

impl MachineContext<'_> {
    /// The service of type `T`.
    pub fn get<T: Any>(&self) -> Result<&T, MissingService> {
        self.services.get()
    }

    /// The place of the PCI function.
    pub fn pci_slot(&self) -> Result<PciSlotContext, NoPciSlot> {
        self.pci_slot.ok_or(NoPciSlot)
    }

    /// A source on the line of global system interrupt `gsi`.
    pub fn line(&self, gsi: u32) -> Result<LineInterrupt, Box<dyn Error + Send + Sync>> {
        Ok(self.get::<InterruptLines>()?.line(gsi)?)
    }
}

/// The place of a PCI function.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct PciSlotContext {
    /// Its address.
    pub address: PciAddress,
    /// The global system interrupt of its INTx pin.
    pub gsi: u32,
    /// Other functions have the same device number, which function 0 has to say.
    pub multifunction: bool,
}

/// A PCI function is configured as a device with fixed addresses.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is a PCI function, and needs a slot")]
pub struct NoPciSlot;
