use crate::MultiFunction;
use crate::PciConnection;
use crate::VirtioDevice;
use crate::VirtioPciDevice;
use chipset_device::BuildResult;
use chipset_device::DoorbellTarget;
use chipset_device::MachineContext;
use chipset_device::MsiTarget;
use chipset_device::shared;
use guest_memory::GuestMemory;
use std::sync::Arc;

/// Puts `device` behind the PCI transport, for the handle of a virtio device.
///
/// It asks its machine for guest memory, an interrupt line, `Arc<dyn MsiTarget>` and `Arc<dyn DoorbellTarget>`.
pub fn build_pci_function(device: impl VirtioDevice, machine: &MachineContext<'_>) -> BuildResult {
    let slot = machine.pci_slot()?;
    let function = VirtioPciDevice::new(
        device,
        PciConnection {
            name: machine.name.to_owned(),
            address: slot.address,
            multi_function: match slot.multifunction {
                false => MultiFunction::No,
                true => MultiFunction::Yes,
            },
            memory: machine.get::<GuestMemory>()?,
            msi: &**machine.get::<Arc<dyn MsiTarget>>()?,
            line: Some(machine.line(slot.gsi)?),
            doorbells: machine.get::<Arc<dyn DoorbellTarget>>()?.clone(),
            decoder: machine.decoder.clone(),
        },
    )?;
    Ok(shared(function))
}

/// The number of MSI-X vectors of a device with this many queues: one for each, and one for the configuration.
pub fn msi_vectors(queues: u16) -> u32 {
    u32::from(queues) + 1
}
