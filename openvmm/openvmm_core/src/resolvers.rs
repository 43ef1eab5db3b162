//! The kinds of devices that a machine can have. A new kind is one line here.

use chipset::DebugPortHandle;
use chipset::I8042Handle;
use chipset::IoApicHandle;
use chipset::PmHandle;
use chipset::PvPanicHandle;
use chipset::RtcHandle;
use chipset_device::ChipsetDeviceHandle;
use chipset_device::PciDeviceHandle;
use disk_spec::VirtioBlkHandle;
use q35::ConfigPortsHandle;
use q35::EcamHandle;
use q35::HostBridgeHandle;
use q35::IsaBridgeHandle;
use serial_16550::Serial16550Handle;
use sleep_port::SleepPortHandle;
use virtio_net::VirtioNetHandle;
use virtio_rng::VirtioRngHandle;
use vm_resource::Registry;

/// The devices with fixed addresses.
pub(crate) fn chipset_devices() -> Registry<dyn ChipsetDeviceHandle> {
    let mut registry = Registry::<dyn ChipsetDeviceHandle>::default();
    registry.register(|handle: ConfigPortsHandle| Box::new(handle));
    registry.register(|handle: DebugPortHandle| Box::new(handle));
    registry.register(|handle: EcamHandle| Box::new(handle));
    registry.register(|handle: HostBridgeHandle| Box::new(handle));
    registry.register(|handle: I8042Handle| Box::new(handle));
    registry.register(|handle: IoApicHandle| Box::new(handle));
    registry.register(|handle: IsaBridgeHandle| Box::new(handle));
    registry.register(|handle: PmHandle| Box::new(handle));
    registry.register(|handle: PvPanicHandle| Box::new(handle));
    registry.register(|handle: RtcHandle| Box::new(handle));
    registry.register(|handle: Serial16550Handle| Box::new(handle));
    registry.register(|handle: SleepPortHandle| Box::new(handle));
    registry
}

/// The PCI functions.
pub(crate) fn pci_devices() -> Registry<dyn PciDeviceHandle> {
    let mut registry = Registry::<dyn PciDeviceHandle>::default();
    registry.register(|handle: VirtioBlkHandle| Box::new(handle));
    registry.register(|handle: VirtioNetHandle| Box::new(handle));
    registry.register(|handle: VirtioRngHandle| Box::new(handle));
    registry
}

#[cfg(test)]
#[path = "resolvers_test.rs"]
mod tests;
