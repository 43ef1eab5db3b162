//! The saved state of a virtio device over PCI.

use crate::queue::QueueLayout;
use crate::registers::DRIVER_OK;
use crate::registers::FEATURES_OK;
use crate::registers::NO_VECTOR;
use crate::registers::QueueRegisters;
use crate::registers::Registers;
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
    pub(crate) registers: RegistersState,
    #[n(4)]
    pub(crate) generation: u8,
    #[n(5)]
    pub(crate) needs_reset: bool,
    /// What the device type adds.
    #[n(6)]
    pub(crate) device: Option<SavedState>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct RegistersState {
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

impl RegistersState {
    pub(crate) fn save(registers: &Registers) -> Self {
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

    /// The registers in this state, of a device that has `own` ones.
    pub(crate) fn registers(&self, own: &Registers) -> Result<Registers, RestoreError> {
        let saved = self.queues.len();
        if saved != own.queues.len() {
            let count = own.queues.len();
            return Err(invalid(format!(
                "a virtio device with {saved} queues, and here it has {count}"
            )));
        }
        let negotiated = self.status & FEATURES_OK != 0;
        if negotiated && !own.agrees(self.driver_features) {
            return Err(invalid(format!(
                "virtio features {:#x} are in use, and {:#x} are to be had here",
                self.driver_features, own.offered
            )));
        }
        let status_is_possible =
            own.knows_status(self.status) && (negotiated || self.status & DRIVER_OK == 0);
        if !status_is_possible {
            return Err(invalid(format!("virtio status {:#x}", self.status)));
        }
        check_vector(self.config_vector, own)?;
        let queues = self.queues.iter().zip(&own.queues);
        Ok(Registers {
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
    fn save(queue: &QueueRegisters) -> Self {
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

    fn registers(&self, max_size: u16, own: &Registers) -> Result<QueueRegisters, RestoreError> {
        check_vector(self.vector, own)?;
        if !self.size.is_power_of_two() || self.size > max_size {
            let size = self.size;
            return Err(invalid(format!(
                "a virtio queue of {size} entries, of at most {max_size}"
            )));
        }
        Ok(QueueRegisters {
            max_size,
            enabled: self.enabled,
            vector: self.vector,
            // Where the rings are is checked when they are used, as it is for what drivers write.
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

fn check_vector(vector: u16, own: &Registers) -> Result<(), RestoreError> {
    if vector == NO_VECTOR || vector < own.vectors {
        Ok(())
    } else {
        Err(invalid(format!("MSI-X vector {vector} of {}", own.vectors)))
    }
}
