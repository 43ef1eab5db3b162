//! Devices as plain data, and what a machine gives a device that is built from it.

use crate::AddressDecoder;
use crate::ChipsetDevice;
use crate::DeviceWaker;
use crate::InterruptLines;
use crate::LineInterrupt;
use crate::MissingService;
use crate::PciAddress;
use crate::PciConfigSpace;
use crate::Services;
use minicbor::Decode;
use minicbor::Encode;
use parking_lot::Mutex;
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Plain data that names a device and says how it is configured. It is encoded with numbered fields, so that it can be
/// stored, and sent to another process.
pub trait ResourceHandle: Encode<()> + for<'b> Decode<'b, ()> + 'static {
    /// The kind of device. It is stored with the encoded handle: never changed, and never used for another kind.
    const ID: &'static str;
}

/// A device as the chipset holds it.
pub type SharedDevice = Arc<Mutex<dyn ChipsetDevice>>;

/// `device`, as the chipset holds it.
pub fn shared(device: impl ChipsetDevice) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

/// Why a device cannot be built. Who builds it knows its name, and puts it before this.
pub type DeviceBuildError = Box<dyn Error + Send + Sync>;

/// The handle of a device with fixed addresses.
pub trait ChipsetDeviceHandle: fmt::Debug + Send + Sync {
    /// What of the device a hibernated or snapshotted guest relies on, beside its name; `None` if a machine with the
    /// device and one without it are the same to the guest, or always differ in something else too.
    ///
    /// Stored with hibernated guests, so its text never changes.
    fn identity(&self) -> Option<String> {
        None
    }

    /// Builds the device.
    fn build(&self, machine: &mut MachineContext<'_>) -> Result<SharedDevice, DeviceBuildError>;
}

/// The handle of a PCI function that can be at any address.
pub trait PciDeviceHandle: fmt::Debug + Send + Sync {
    /// What of the device called `name` in the VM `vm` a hibernated or snapshotted guest relies on, beside its name and
    /// address. Stored with hibernated guests, so its text never changes.
    fn identity(&self, name: &str, vm: Uuid) -> String;

    /// Builds the device.
    fn build(
        &self,
        slot: &PciSlotContext,
        machine: &mut MachineContext<'_>,
    ) -> Result<SharedDevice, DeviceBuildError>;
}

/// What a machine gives one device.
#[derive(Debug)]
pub struct MachineContext<'a> {
    /// The device's name in the VM.
    pub name: &'a str,
    /// The VM's identity, for what is derived from it.
    pub vm: Uuid,
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

    /// A source on the line of global system interrupt `gsi`.
    pub fn line(&self, gsi: u32) -> Result<LineInterrupt, MissingService> {
        Ok(self.get::<InterruptLines>()?.line(gsi))
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
