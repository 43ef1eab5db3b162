//! How a virtio device is connected to its machine.

use chipset_device::AddressDecoder;
use chipset_device::DoorbellTarget;
use chipset_device::LineInterrupt;
use chipset_device::MsiTarget;
use chipset_device::PciAddress;
use guest_memory::GuestMemory;
use std::sync::Arc;

/// What a virtio device over PCI is connected to.
pub struct PciConnection<'a> {
    /// The name of the device in logs.
    pub name: String,
    /// The address of the PCI function.
    pub address: PciAddress,
    /// Whether there are other functions at its device number.
    pub multi_function: MultiFunction,
    /// Guest RAM.
    pub memory: &'a GuestMemory,
    /// Receives MSI-X interrupts.
    pub msi: &'a dyn MsiTarget,
    /// The INTx line. Without one, the pin is not connected.
    pub line: Option<LineInterrupt>,
    /// Turns the driver's notifications into events.
    pub doorbells: Arc<dyn DoorbellTarget>,
    /// Learns the addresses of the BARs.
    pub decoder: AddressDecoder,
}

/// Whether a PCI function shares its device number with others. Guests look for those only if function 0 says so.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum MultiFunction {
    /// It is the only one.
    No,
    /// There are others.
    Yes,
}
