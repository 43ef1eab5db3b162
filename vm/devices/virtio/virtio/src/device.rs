//! The contract between a transport and the device types on it.

use crate::DeviceSignals;
use crate::VirtQueue;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use pci_core::ClassCode;

/// The constant properties of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The device type (section 5): 1 network, 2 block, 4 entropy.
    pub device_type: u16,
    /// The PCI class code.
    pub class: ClassCode,
    /// The offered features of the device type, bits 0 to 23 and 50 to 63. The transport adds its own.
    pub features: u64,
    /// The maximum size of each queue, a power of two up to 32768. The length is the number of queues.
    pub queue_sizes: Vec<u16>,
    /// The length of the device-specific configuration structure in bytes, at most 4096; 0 if there is none.
    pub config_len: u32,
}

/// What a device type receives when its driver is ready.
pub struct Activation {
    /// The negotiated features.
    pub features: u64,
    /// The queues that the driver enabled, by ascending [`VirtQueue::index`]. Some may be missing.
    ///
    /// Each may already hold chains: check before waiting for a notification.
    pub queues: Vec<VirtQueue>,
    /// Notifies the driver of configuration changes and of failure.
    pub signals: DeviceSignals,
}

/// Why a device type could not be activated.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}")]
pub struct ActivateError {
    /// What was attempted.
    pub operation: &'static str,
    /// What went wrong.
    #[source]
    pub source: std::io::Error,
}

/// A device type on top of a transport.
///
/// It is inactive at first. `activate` and `deactivate` alternate; the other methods are called at any time. Stopping
/// the VM calls `deactivate`, and resuming it calls `activate` with the queues as they were. The device type keeps
/// what must survive that (and `save`), and drops in `reset` what must not survive a reset by the driver.
pub trait VirtioDevice: Send + 'static {
    /// The device's properties. Always returns the same.
    fn info(&self) -> DeviceInfo;

    /// Reads `data.len()` bytes at `offset` of the configuration structure, all within its length.
    fn read_config(&mut self, offset: u32, data: &mut [u8]);

    /// Writes bytes at `offset` of the configuration structure, all within its length. Ignored by default.
    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Starts processing the queues. On an error the device stays inactive, and the driver sees
    /// DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Stops processing: completes requests in flight in their queues, and accesses no guest memory afterwards.
    /// Returns all queues, in any order.
    fn deactivate(&mut self) -> Vec<VirtQueue>;

    /// The driver reset the device, or the VM was reset. Called while inactive.
    fn reset(&mut self) {}

    /// Saves the device type's own state, if it has any. Called while inactive.
    fn save(&mut self) -> Result<Option<SavedState>, SaveError> {
        Ok(None)
    }

    /// Restores the state that `save` returned. Called while inactive. On an error the device is unchanged.
    fn restore(&mut self, state: Option<&SavedState>) -> Result<(), RestoreError> {
        match state {
            None => Ok(()),
            Some(_) => Err(RestoreError::Invalid(
                "state for a virtio device type that has none".into(),
            )),
        }
    }

    /// A report of the device type for a person who debugs the guest.
    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
