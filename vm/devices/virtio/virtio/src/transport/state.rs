//! The saved state of a virtio device over PCI.

use crate::common_config::CommonConfig;
use crate::common_config::DRIVER_OK;
use crate::common_config::FEATURES_OK;
use crate::common_config::NO_VECTOR;
use crate::common_config::QueueConfig;
use crate::queue::QueueLayout;
use chipset_device::RestoreError;
use chipset_device::SavedState;
use minicbor::Decode;
use minicbor::Encode;
use pci_core::FunctionState;

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct DeviceState {
    #[n(1)]
    pub(crate) function: FunctionState,
    #[n(2)]
    pub(crate) isr: u8,
    #[n(3)]
    pub(crate) registers: CommonConfigState,
    #[n(4)]
    pub(crate) generation: u8,
    #[n(5)]
    pub(crate) needs_reset: bool,
    /// State of the device type.
    #[n(6)]
    pub(crate) device: Option<SavedState>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct CommonConfigState {
    #[n(1)]
    device_feature_select: u32,
    #[n(2)]
    driver_feature_select: u32,
    #[n(3)]
    driver_features: u64,
    #[n(4)]
    config_vector: u16,
    #[n(5)]
    status: u8,
    #[n(6)]
    queue_select: u16,
    #[n(7)]
    queues: Vec<QueueState>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct QueueState {
    #[n(1)]
    enabled: bool,
    #[n(2)]
    vector: u16,
    #[n(3)]
    size: u16,
    #[n(4)]
    descriptors: u64,
    #[n(5)]
    available: u64,
    #[n(6)]
    used: u64,
    #[n(7)]
    next_available: u16,
    #[n(8)]
    next_used: u16,
}

fn invalid(text: impl Into<String>) -> RestoreError {
    RestoreError::Invalid(text.into())
}

impl CommonConfigState {
    pub(crate) fn save(registers: &CommonConfig) -> Self {
        Self {
            device_feature_select: registers.device_feature_select,
            driver_feature_select: registers.driver_feature_select,
            driver_features: registers.driver_features,
            config_vector: registers.config_vector,
            status: registers.status,
            queue_select: registers.queue_select,
            queues: registers.queues.iter().map(QueueState::save).collect(),
        }
    }

    /// Restores the registers for a device whose registers are `own`, after checking that they fit.
    pub(crate) fn registers(&self, own: &CommonConfig) -> Result<CommonConfig, RestoreError> {
        let saved = self.queues.len();
        if saved != own.queues.len() {
            let count = own.queues.len();
            return Err(invalid(format!(
                "the virtio device had {saved} queues when it was saved, but has {count} now"
            )));
        }
        let negotiated = self.status & FEATURES_OK != 0;
        if negotiated && !own.accepts(self.driver_features) {
            return Err(invalid(format!(
                "virtio features {:#x} were negotiated, but only {:#x} are offered now",
                self.driver_features, own.offered
            )));
        }
        let status_is_possible =
            own.knows_status(self.status) && (negotiated || self.status & DRIVER_OK == 0);
        if !status_is_possible {
            return Err(invalid(format!(
                "invalid virtio device status {:#x}",
                self.status
            )));
        }
        check_vector(self.config_vector, own)?;
        let queues = self.queues.iter().zip(&own.queues);
        Ok(CommonConfig {
            offered: own.offered,
            vectors: own.vectors,
            device_feature_select: self.device_feature_select,
            driver_feature_select: self.driver_feature_select,
            driver_features: self.driver_features,
            config_vector: self.config_vector,
            status: self.status,
            queue_select: self.queue_select,
            queues: queues
                .map(|(queue, own_queue)| queue.registers(own_queue.max_size, own))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl QueueState {
    fn save(queue: &QueueConfig) -> Self {
        let layout = &queue.layout;
        Self {
            enabled: queue.enabled,
            vector: queue.vector,
            size: layout.size,
            descriptors: layout.descriptors,
            available: layout.available,
            used: layout.used,
            next_available: layout.next_available,
            next_used: layout.next_used,
        }
    }

    fn registers(&self, max_size: u16, own: &CommonConfig) -> Result<QueueConfig, RestoreError> {
        check_vector(self.vector, own)?;
        if !self.size.is_power_of_two() || self.size > max_size {
            let size = self.size;
            return Err(invalid(format!(
                "a virtio queue has {size} entries: not a power of two up to {max_size}"
            )));
        }
        Ok(QueueConfig {
            max_size,
            enabled: self.enabled,
            vector: self.vector,
            // The addresses are checked when the queue is activated, as are those that drivers write.
            layout: QueueLayout {
                size: self.size,
                descriptors: self.descriptors,
                available: self.available,
                used: self.used,
                next_available: self.next_available,
                next_used: self.next_used,
            },
        })
    }
}

fn check_vector(vector: u16, own: &CommonConfig) -> Result<(), RestoreError> {
    if vector == NO_VECTOR || vector < own.vectors {
        Ok(())
    } else {
        Err(invalid(format!(
            "MSI-X vector {vector} is out of range: there are {}",
            own.vectors
        )))
    }
}
