use crate::DeviceSignals;
use crate::VirtQueue;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use pci_core::ClassCode;

/// What a device is, for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The device type (section 5): 1 network, 2 block, 4 entropy.
    pub device_type: u16,
    /// What kind of PCI device it shows itself as.
    pub class: ClassCode,
    /// The features of the device type that are offered, bits 0 to 23 and 50 to 63. The transport adds its own.
    pub features: u64,
    /// The largest size of each queue, a power of two up to 32768. Their number is the number of queues.
    pub queue_sizes: Vec<u16>,
    /// The length of the configuration structure in bytes, at most 4096; 0 if there is none.
    pub config_len: u32,
}

/// What a device type gets to work with.
#[derive(Debug)]
pub struct Activation {
    /// The features that were negotiated.
    pub features: u64,
    /// The queues the driver enabled, by ascending [`VirtQueue::index`]. Some may be missing.
    ///
    /// Each may hold chains already: look before waiting.
    pub queues: Vec<VirtQueue>,
    /// How to tell the driver that the configuration changed, or that the device gave up.
    pub signals: DeviceSignals,
}

/// Why a device type could not start to work.
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
/// It is idle at first. `activate` and `deactivate` take turns; the other methods come at any time. Stopping
/// the VM is `deactivate`, and going on is `activate` with the queues as they were: what must outlive that
/// (and `save`) is kept by the device type; what must not outlive a reset by the driver is dropped in `reset`.
pub trait VirtioDevice: Send + 'static {
    /// What the device is. Always the same.
    fn info(&self) -> DeviceInfo;

    /// Reads `data.len()` bytes at `offset` of the configuration structure, which has them.
    fn read_config(&mut self, offset: u32, data: &mut [u8]);

    /// Writes to the configuration structure, which has the bytes. Most of it is read-only: writes are dropped.
    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Starts to work on the queues. On an error the device is idle, and the driver sees DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Ends all work: requests in flight are completed in their queues, nothing touches guest memory any
    /// more. Gives back the queues, all of them, in any order.
    fn deactivate(&mut self) -> Vec<VirtQueue>;

    /// The driver reset the device, or the VM was. Called while idle.
    fn reset(&mut self) {}

    /// State beyond the transport's, if there is any. Called while idle.
    fn save(&mut self) -> Result<Option<SavedState>, SaveError> {
        Ok(None)
    }

    /// Takes the state that `save` gave. Called while idle. On an error the device is as it was.
    fn restore(&mut self, state: Option<&SavedState>) -> Result<(), RestoreError> {
        match state {
            None => Ok(()),
            Some(_) => Err(RestoreError::Invalid(
                "the device has state, and should have none".into(),
            )),
        }
    }

    /// What a person debugging the guest wants to see of the device type.
    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
