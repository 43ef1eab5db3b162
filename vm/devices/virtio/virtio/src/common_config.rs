//! The registers of the common configuration structure (4.1.4.3). What a write causes elsewhere is left to the caller.

use chipset_device::IoError;
use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_ACKNOWLEDGE;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_FAILED;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_FEATURES_OK;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use virtio_bindings::virtio_config::VIRTIO_F_RING_RESET;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
pub(crate) const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;
/// The device status bits that a driver sets.
const DRIVER_STATUS: u8 = VIRTIO_CONFIG_S_ACKNOWLEDGE as u8
    | VIRTIO_CONFIG_S_DRIVER as u8
    | VIRTIO_CONFIG_S_FAILED as u8
    | FEATURES_OK
    | DRIVER_OK;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
/// Queues can be reset individually.
pub(crate) const RING_RESET: u64 = 1 << VIRTIO_F_RING_RESET;
/// Both sides say at which index they want the next notification.
pub(crate) const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
/// The features that the transport offers for every device type.
pub(crate) const TRANSPORT_FEATURES: u64 =
    VERSION_1 | RING_RESET | EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// No MSI-X vector (`VIRTIO_MSI_NO_VECTOR`).
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// The registers of one queue, the addresses of its rings and how far they have been processed; also its saved state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct QueueConfig {
    #[n(1)]
    pub(crate) enabled: bool,
    #[n(2)]
    pub(crate) vector: u16,
    #[n(3)]
    pub(crate) size: u16,
    #[n(4)]
    pub(crate) descriptors: u64,
    #[n(5)]
    pub(crate) available: u64,
    #[n(6)]
    pub(crate) used: u64,
    #[n(7)]
    pub(crate) next_available: u16,
    #[n(8)]
    pub(crate) next_used: u16,
    #[cbor(skip)]
    max_size: u16,
}

impl QueueConfig {
    fn new(max_size: u16) -> Self {
        Self {
            enabled: false,
            vector: NO_VECTOR,
            size: max_size,
            descriptors: 0,
            available: 0,
            used: 0,
            next_available: 0,
            next_used: 0,
            max_size,
        }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }

    fn is_valid_size(&self, size: u16) -> bool {
        size.is_power_of_two() && size <= self.max_size
    }
}

/// What a write requires of the device.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it only changed a register.
    None,
    /// Reset the device.
    Reset,
    /// Activate or deactivate the device according to its new status.
    Status,
    /// Use the vector for the queue, or for configuration changes if there is no queue.
    Vector(Option<u16>, u16),
    /// A queue has been enabled.
    QueueEnabled,
    /// Reset the queue.
    QueueReset(u16),
}

/// The common configuration structure; also its saved state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct CommonConfig {
    #[n(1)]
    device_feature_select: u32,
    #[n(2)]
    driver_feature_select: u32,
    #[n(3)]
    pub(crate) driver_features: u64,
    #[n(4)]
    pub(crate) config_vector: u16,
    #[n(5)]
    pub(crate) status: u8,
    #[n(6)]
    queue_select: u16,
    #[n(7)]
    pub(crate) queues: Vec<QueueConfig>,
    #[cbor(skip)]
    pub(crate) offered: u64,
    #[cbor(skip)]
    vectors: u16,
}

impl CommonConfig {
    pub(crate) fn new(offered: u64, vectors: u16, queue_sizes: &[u16]) -> Self {
        Self {
            offered,
            vectors,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queues: queue_sizes.iter().copied().map(QueueConfig::new).collect(),
        }
    }

    pub(crate) fn reset(&mut self) {
        let sizes: Vec<_> = self.queues.iter().map(|q| q.max_size).collect();
        *self = Self::new(self.offered, self.vectors, &sizes);
    }

    /// Checks that `saved` fits this device. Returns it with this device's properties.
    pub(crate) fn restored(&self, mut saved: Self) -> Result<Self, RestoreError> {
        if saved.queues.len() != self.queues.len() {
            return Err(RestoreError::Invalid(format!(
                "the virtio device had {} queues when it was saved, but has {} now",
                saved.queues.len(),
                self.queues.len()
            )));
        }
        let negotiated = saved.status & FEATURES_OK != 0;
        if negotiated && !self.accepts(saved.driver_features) {
            return Err(RestoreError::Invalid(format!(
                "virtio features {:#x} were negotiated, but only {:#x} are offered now",
                saved.driver_features, self.offered
            )));
        }
        let status = saved.status;
        if status & !DRIVER_STATUS != 0 || !negotiated && status & DRIVER_OK != 0 {
            return Err(RestoreError::Invalid(format!(
                "invalid virtio device status {status:#x}"
            )));
        }
        self.check_vector(saved.config_vector)?;
        // The addresses of the rings are checked when the queue is activated, as are those that drivers write.
        for (queue, own) in saved.queues.iter_mut().zip(&self.queues) {
            self.check_vector(queue.vector)?;
            queue.max_size = own.max_size;
            if !queue.is_valid_size(queue.size) {
                return Err(RestoreError::Invalid(format!(
                    "a virtio queue has {} entries: not a power of two up to {}",
                    queue.size, queue.max_size
                )));
            }
        }
        saved.offered = self.offered;
        saved.vectors = self.vectors;
        Ok(saved)
    }

    fn check_vector(&self, vector: u16) -> Result<(), RestoreError> {
        if vector == NO_VECTOR || vector < self.vectors {
            return Ok(());
        }
        let vectors = self.vectors;
        Err(RestoreError::Invalid(format!(
            "MSI-X vector {vector} is out of range: there are {vectors}"
        )))
    }

    /// Whether the device accepts `features`.
    fn accepts(&self, features: u64) -> bool {
        features & !self.offered == 0 && features & VERSION_1 != 0
    }

    /// Whether the driver has completed its initialization.
    pub(crate) fn driver_ok(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    fn queue(&self) -> Option<&QueueConfig> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// Reads `len` bytes at `offset`: a whole field, or half of a 64-bit one.
    ///
    /// `generation` and `needs_reset` are the current values of the device.
    pub(crate) fn read(
        &self,
        offset: u64,
        len: usize,
        generation: u8,
        needs_reset: bool,
    ) -> Result<u64, IoError> {
        let queue = self.queue();
        let address = |pick: fn(&QueueConfig) -> u64| queue.map_or(0, pick);
        let value = match (offset, len) {
            (0x00, 4) => self.device_feature_select.into(),
            (0x04, 4) => half(self.offered, self.device_feature_select).into(),
            (0x08, 4) => self.driver_feature_select.into(),
            (0x0c, 4) => half(self.driver_features, self.driver_feature_select).into(),
            (0x10, 2) => self.config_vector.into(),
            (0x12, 2) => self.queues.len() as u64,
            (0x14, 1) => u64::from(self.status | if needs_reset { NEEDS_RESET } else { 0 }),
            (0x15, 1) => generation.into(),
            (0x16, 2) => self.queue_select.into(),
            (0x18, 2) => queue.map_or(0, |q| q.size).into(),
            (0x1a, 2) => queue.map_or(NO_VECTOR, |q| q.vector).into(),
            (0x1c, 2) => queue.is_some_and(|q| q.enabled).into(),
            // queue_notify_off is the queue's index: each queue has its own notification address.
            (0x1e, 2) => self.queue_select.into(),
            (0x20, 4 | 8) => address(|q| q.descriptors),
            (0x24, 4) => address(|q| q.descriptors) >> 32,
            (0x28, 4 | 8) => address(|q| q.available),
            (0x2c, 4) => address(|q| q.available) >> 32,
            (0x30, 4 | 8) => address(|q| q.used),
            (0x34, 4) => address(|q| q.used) >> 32,
            // Notification data is not offered, and a queue reset completes immediately.
            (0x38 | 0x3a, 2) => 0,
            _ => return Err(IoError::InvalidAccessSize),
        };
        Ok(value)
    }

    /// Writes `len` bytes at `offset`. Writes that a driver must not make, or not at this time, are ignored.
    pub(crate) fn write(&mut self, offset: u64, len: usize, value: u64) -> Result<Effect, IoError> {
        let negotiating = self.status & FEATURES_OK == 0;
        match (offset, len) {
            (0x00, 4) => self.device_feature_select = value as u32,
            (0x08, 4) => self.driver_feature_select = value as u32,
            (0x0c, 4) if negotiating => {
                let features = &mut self.driver_features;
                match self.driver_feature_select {
                    0 => *features = *features & !0xffff_ffff | value & 0xffff_ffff,
                    1 => *features = *features & 0xffff_ffff | value << 32,
                    _ => {}
                }
            }
            (0x10, 2) => {
                self.config_vector = self.vector(value);
                return Ok(Effect::Vector(None, self.config_vector));
            }
            (0x14, 1) => return Ok(self.write_status(value as u8)),
            (0x16, 2) => self.queue_select = value as u16,
            (0x1a, 2) => {
                let vector = self.vector(value);
                if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) {
                    queue.vector = vector;
                    return Ok(Effect::Vector(Some(self.queue_select), vector));
                }
            }
            (0x3a, 2) => {
                let negotiated = !negotiating && self.driver_features & RING_RESET != 0;
                let enabled = self.queue().is_some_and(|queue| queue.enabled);
                if value == 1 && negotiated && enabled {
                    return Ok(Effect::QueueReset(self.queue_select));
                }
            }
            (0x18 | 0x1c, 2) | (0x20 | 0x28 | 0x30, 4 | 8) | (0x24 | 0x2c | 0x34, 4) => {
                return Ok(self.write_queue(offset, len, value));
            }
            // Read-only fields, or not writable at this time.
            (0x04 | 0x0c, 4) | (0x12 | 0x1e | 0x38, 2) | (0x15, 1) => {}
            _ => return Err(IoError::InvalidAccessSize),
        }
        Ok(Effect::None)
    }

    fn vector(&self, value: u64) -> u16 {
        let vector = value as u16;
        if vector < self.vectors {
            vector
        } else {
            NO_VECTOR
        }
    }

    fn write_status(&mut self, value: u8) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        let mut status = self.status | value & DRIVER_STATUS;
        if self.status & FEATURES_OK == 0 && !self.accepts(self.driver_features) {
            status &= !FEATURES_OK;
        }
        // A legacy driver does not set FEATURES_OK, and cannot use the device.
        if status & FEATURES_OK == 0 {
            status &= !DRIVER_OK;
        }
        self.status = status;
        Effect::Status
    }

    /// Writes the registers of the selected queue, which are writable until it is enabled.
    fn write_queue(&mut self, offset: u64, len: usize, value: u64) -> Effect {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return Effect::None;
        };
        if queue.enabled {
            return Effect::None;
        }
        match offset {
            0x18 => {
                let size = value as u16;
                if queue.is_valid_size(size) {
                    queue.size = size;
                }
            }
            0x1c if value == 1 => {
                queue.enabled = true;
                return Effect::QueueEnabled;
            }
            0x20 | 0x24 => set_address(&mut queue.descriptors, offset, len, value),
            0x28 | 0x2c => set_address(&mut queue.available, offset, len, value),
            0x30 | 0x34 => set_address(&mut queue.used, offset, len, value),
            _ => {}
        }
        Effect::None
    }
}

fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn set_address(address: &mut u64, offset: u64, len: usize, value: u64) {
    *address = match (offset & 4, len) {
        (_, 8) => value,
        (0, _) => *address & !0xffff_ffff | value & 0xffff_ffff,
        _ => *address & 0xffff_ffff | value << 32,
    };
}

#[cfg(test)]
#[path = "common_config_test.rs"]
mod tests;
