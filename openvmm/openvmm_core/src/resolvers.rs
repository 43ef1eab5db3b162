//! The kinds of devices that a machine can have. A new kind is one line here.

use chipset::DebugPortHandle;
use chipset::I8042Handle;
use chipset::IoApicHandle;
use chipset::PmHandle;
use chipset::PvPanicHandle;
use chipset::RtcHandle;
use disk_spec::VirtioBlkHandle;
use firmware_uefi::FirmwareUefiHandle;
use q35::ConfigPortsHandle;
use q35::EcamHandle;
use q35::HostBridgeHandle;
use q35::IsaBridgeHandle;
use serial_16550::Serial16550Handle;
use sleep_port::SleepPortHandle;
use virtio_net::VirtioNetHandle;
use virtio_rng::VirtioRngHandle;
use vm_resource::Registry;

/// All of them.
pub(crate) fn devices() -> Registry {
    let mut registry = Registry::default();
    registry.register::<ConfigPortsHandle>();
    registry.register::<DebugPortHandle>();
    registry.register::<EcamHandle>();
    registry.register::<FirmwareUefiHandle>();
    registry.register::<HostBridgeHandle>();
    registry.register::<I8042Handle>();
    registry.register::<IoApicHandle>();
    registry.register::<IsaBridgeHandle>();
    registry.register::<PmHandle>();
    registry.register::<PvPanicHandle>();
    registry.register::<RtcHandle>();
    registry.register::<Serial16550Handle>();
    registry.register::<SleepPortHandle>();
    registry.register::<VirtioBlkHandle>();
    registry.register::<VirtioNetHandle>();
    registry.register::<VirtioRngHandle>();
    registry
}

#[cfg(test)]
#[path = "resolvers_test.rs"]
mod tests;
