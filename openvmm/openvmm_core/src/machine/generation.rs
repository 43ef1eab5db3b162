//! Changing a machine's generation ID: the device that has it depends on the machine's firmware.

use chipset_device::Services;
use firmware_uefi::FirmwareControl;
use generation_id::GENERATION_ID_LEN;
use generation_id::GenerationId;
use parking_lot::Mutex;
use std::sync::Arc;

/// The generation ID device of a PC: a service.
#[derive(Clone)]
pub(crate) struct GenerationDevice(pub Arc<Mutex<GenerationId>>);

/// What changes a machine's generation ID.
pub(crate) enum GenerationControl {
    /// A device of its own.
    Device(GenerationDevice),
    /// The UEFI device of a generation-2 VM.
    Uefi(FirmwareControl),
}

impl GenerationControl {
    /// That of the machine with these services, if it has one.
    pub(crate) fn find(services: &Services) -> Option<Self> {
        let device = services.get::<GenerationDevice>();
        let uefi = || {
            services
                .get::<FirmwareControl>()
                .ok()
                .cloned()
                .map(Self::Uefi)
        };
        device.ok().cloned().map(Self::Device).or_else(uefi)
    }

    /// Changes the ID, and notifies the guest when it runs.
    pub(crate) fn change(&self, id: [u8; GENERATION_ID_LEN]) {
        match self {
            Self::Device(GenerationDevice(device)) => device.lock().change(id),
            Self::Uefi(control) => control.change_generation_id(id),
        }
    }
}
