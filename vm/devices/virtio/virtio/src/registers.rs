//! The registers of the common configuration (4.1.4.3), without what follows from writing them.

use crate::queue::QueueLayout;
use chipset_device::IoError;
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

pub(crate) const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
pub(crate) const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
pub(crate) const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;
/// The status bits that a driver sets.
const DRIVER_STATUS: u8 = VIRTIO_CONFIG_S_ACKNOWLEDGE as u8
    | VIRTIO_CONFIG_S_DRIVER as u8
    | VIRTIO_CONFIG_S_FAILED as u8
    | FEATURES_OK
    | DRIVER_OK;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
/// Queues can be reset one by one.
pub(crate) const RING_RESET: u64 = 1 << VIRTIO_F_RING_RESET;
/// Notifications of both directions say how far is far enough.
pub(crate) const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
/// What the transport and its queues offer for every device type.
pub(crate) const TRANSPORT_FEATURES: u64 =
    VERSION_1 | RING_RESET | EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// No MSI-X vector.
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// The registers of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueRegisters {
    pub(crate) max_size: u16,
    pub(crate) enabled: bool,
    pub(crate) vector: u16,
    pub(crate) layout: QueueLayout,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            enabled: false,
            vector: NO_VECTOR,
            layout: QueueLayout {
                size: max_size,
                descriptors: 0,
                available: 0,
                used: 0,
                next_available: 0,
                next_used: 0,
            },
        }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }
}

/// What a write asks of the device.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Nothing, it was just remembered.
    Nothing,
    /// To reset the device.
    Reset,
    /// To look whether it is to work now.
    Status,
    /// To remember the vector of the queue, or of the configuration.
    Vector(Option<u16>, u16),
    /// A queue was enabled.
    QueueEnabled,
    /// To reset the queue.
    QueueReset(u16),
}

/// The common configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) offered: u64,
    pub(crate) vectors: u16,
    pub(crate) device_feature_select: u32,
    pub(crate) driver_feature_select: u32,
    pub(crate) driver_features: u64,
    pub(crate) config_vector: u16,
    pub(crate) status: u8,
    pub(crate) queue_select: u16,
    pub(crate) queues: Vec<QueueRegisters>,
}

impl Registers {
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
            queues: queue_sizes
                .iter()
                .copied()
                .map(QueueRegisters::new)
                .collect(),
        }
    }

    pub(crate) fn reset(&mut self) {
        let sizes: Vec<_> = self.queues.iter().map(|q| q.max_size).collect();
        *self = Self::new(self.offered, self.vectors, &sizes);
    }

    /// Whether `features` are a choice that the device agrees with.
    pub(crate) fn agrees(&self, features: u64) -> bool {
        features & !self.offered == 0 && features & VERSION_1 != 0
    }

    /// The driver completed the initialization.
    pub(crate) fn driver_ok(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    /// Whether drivers can have brought it to `status`.
    pub(crate) fn knows_status(&self, status: u8) -> bool {
        status & !DRIVER_STATUS == 0
    }

    fn queue(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// Reads `len` bytes at `offset`. Fields are read whole, or 64-bit ones by halves.
    ///
    /// `generation` and `needs_reset` are what the device says at the moment.
    pub(crate) fn read(
        &self,
        offset: u64,
        len: usize,
        generation: u8,
        needs_reset: bool,
    ) -> Result<u64, IoError> {
        let queue = self.queue();
        let layout = queue.map(|q| &q.layout);
        let address = |pick: fn(&QueueLayout) -> u64| layout.map_or(0, pick);
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
            (0x18, 2) => layout.map_or(0, |l| l.size).into(),
            (0x1a, 2) => queue.map_or(NO_VECTOR, |q| q.vector).into(),
            (0x1c, 2) => queue.is_some_and(|q| q.enabled).into(),
            // The queue's own number: each has a notification address of its own.
            (0x1e, 2) => self.queue_select.into(),
            (0x20, 4 | 8) => address(|l| l.descriptors),
            (0x24, 4) => address(|l| l.descriptors) >> 32,
            (0x28, 4 | 8) => address(|l| l.available),
            (0x2c, 4) => address(|l| l.available) >> 32,
            (0x30, 4 | 8) => address(|l| l.used),
            (0x34, 4) => address(|l| l.used) >> 32,
            // Notification data is not offered, and a queue's reset is over before anybody can look.
            (0x38 | 0x3a, 2) => 0,
            _ => return Err(IoError::InvalidAccessSize),
        };
        Ok(value)
    }

    /// Writes `len` bytes at `offset`. What a driver may not write at the time stays as it is.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        len: usize,
        value: u64,
    ) -> Result<Request, IoError> {
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
                return Ok(Request::Vector(None, self.config_vector));
            }
            (0x14, 1) => return Ok(self.write_status(value as u8)),
            (0x16, 2) => self.queue_select = value as u16,
            (0x1a, 2) => {
                let vector = self.vector(value);
                if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) {
                    queue.vector = vector;
                    return Ok(Request::Vector(Some(self.queue_select), vector));
                }
            }
            (0x3a, 2) => {
                let negotiated = !negotiating && self.driver_features & RING_RESET != 0;
                let enabled = self.queue().is_some_and(|queue| queue.enabled);
                if value == 1 && negotiated && enabled {
                    return Ok(Request::QueueReset(self.queue_select));
                }
            }
            (0x18 | 0x1c, 2) | (0x20 | 0x28 | 0x30, 4 | 8) | (0x24 | 0x2c | 0x34, 4) => {
                return Ok(self.write_queue(offset, len, value));
            }
            // Fields that are the device's to write, or not at this time.
            (0x04 | 0x0c, 4) | (0x12 | 0x1e | 0x38, 2) | (0x15, 1) => {}
            _ => return Err(IoError::InvalidAccessSize),
        }
        Ok(Request::Nothing)
    }

    fn vector(&self, value: u64) -> u16 {
        let vector = value as u16;
        if vector < self.vectors {
            vector
        } else {
            NO_VECTOR
        }
    }

    fn write_status(&mut self, value: u8) -> Request {
        if value == 0 {
            return Request::Reset;
        }
        let mut status = self.status | value & DRIVER_STATUS;
        if self.status & FEATURES_OK == 0 && !self.agrees(self.driver_features) {
            status &= !FEATURES_OK;
        }
        // An older driver, that knows of no agreement, gets no device to work with.
        if status & FEATURES_OK == 0 {
            status &= !DRIVER_OK;
        }
        self.status = status;
        Request::Status
    }

    /// The registers that make up a queue, which can be written until it is enabled.
    fn write_queue(&mut self, offset: u64, len: usize, value: u64) -> Request {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return Request::Nothing;
        };
        if queue.enabled {
            return Request::Nothing;
        }
        let layout = &mut queue.layout;
        match offset {
            0x18 => {
                let size = value as u16;
                if size.is_power_of_two() && size <= queue.max_size {
                    layout.size = size;
                }
            }
            0x1c if value == 1 => {
                queue.enabled = true;
                return Request::QueueEnabled;
            }
            0x20 | 0x24 => set_address(&mut layout.descriptors, offset, len, value),
            0x28 | 0x2c => set_address(&mut layout.available, offset, len, value),
            0x30 | 0x34 => set_address(&mut layout.used, offset, len, value),
            _ => {}
        }
        Request::Nothing
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
mod tests {
    use super::*;

    fn registers() -> Registers {
        Registers::new(TRANSPORT_FEATURES | 1, 3, &[256, 64])
    }

    fn read(registers: &Registers, offset: u64, len: usize) -> u64 {
        registers.read(offset, len, 9, false).unwrap()
    }

    fn negotiate(registers: &mut Registers, features: u64) {
        for select in 0..2 {
            registers.write(0x08, 4, select).unwrap();
            registers
                .write(0x0c, 4, (features >> (32 * select)) & 0xffff_ffff)
                .unwrap();
        }
        registers.write(0x14, 1, 1 | 2).unwrap();
        registers.write(0x14, 1, 1 | 2 | 8).unwrap();
    }

    #[test]
    fn features_are_read_by_halves() {
        let mut r = registers();
        assert_eq!(read(&r, 0x04, 4), (TRANSPORT_FEATURES | 1) & 0xffff_ffff);
        r.write(0x00, 4, 1).unwrap();
        assert_eq!(read(&r, 0x04, 4), TRANSPORT_FEATURES >> 32);
        r.write(0x00, 4, 2).unwrap();
        assert_eq!(read(&r, 0x04, 4), 0);
    }

    #[test]
    fn only_what_was_offered_is_agreed_on() {
        let mut r = registers();
        negotiate(&mut r, VERSION_1 | 1);
        assert_eq!(read(&r, 0x14, 1), 0b1011);
        // From here on the choice stays.
        r.write(0x08, 4, 0).unwrap();
        r.write(0x0c, 4, 0).unwrap();
        assert_eq!(r.driver_features, VERSION_1 | 1);
        for refused in [1, VERSION_1 | 2, 0] {
            let mut r = registers();
            negotiate(&mut r, refused);
            assert_eq!(read(&r, 0x14, 1), 0b0011, "{refused:#x}");
            r.write(0x14, 1, 0b1111).unwrap();
            assert!(!r.driver_ok());
        }
    }

    #[test]
    fn an_enabled_queue_does_not_change() {
        let mut r = registers();
        r.write(0x16, 2, 1).unwrap();
        assert_eq!(read(&r, 0x18, 2), 64);
        for (size, then) in [(128, 64), (48, 64), (0, 64), (16, 16)] {
            r.write(0x18, 2, size).unwrap();
            assert_eq!(read(&r, 0x18, 2), then);
        }
        r.write(0x20, 4, 0x1000).unwrap();
        r.write(0x24, 4, 0x5).unwrap();
        r.write(0x28, 8, 0x6_0000_2000).unwrap();
        assert_eq!(r.write(0x1c, 2, 1), Ok(Request::QueueEnabled));
        r.write(0x20, 8, 0).unwrap();
        r.write(0x18, 2, 32).unwrap();
        r.write(0x1c, 2, 0).unwrap();
        assert_eq!(read(&r, 0x20, 8), 0x5_0000_1000);
        assert_eq!(read(&r, 0x2c, 4), 0x6);
        assert_eq!(read(&r, 0x18, 2), 16);
        assert_eq!(read(&r, 0x1c, 2), 1);
        assert_eq!(read(&r, 0x1e, 2), 1);
    }

    #[test]
    fn a_queue_is_reset_only_if_that_was_agreed_on() {
        for (features, request) in [
            (VERSION_1 | RING_RESET, Request::QueueReset(0)),
            (VERSION_1, Request::Nothing),
        ] {
            let mut r = registers();
            negotiate(&mut r, features);
            assert_eq!(r.write(0x3a, 2, 1), Ok(Request::Nothing), "not enabled");
            r.write(0x1c, 2, 1).unwrap();
            assert_eq!(r.write(0x3a, 2, 1), Ok(request));
        }
    }

    #[test]
    fn vectors_that_are_not_there_read_as_none() {
        let mut r = registers();
        assert_eq!(r.write(0x10, 2, 2), Ok(Request::Vector(None, 2)));
        assert_eq!(r.write(0x10, 2, 3), Ok(Request::Vector(None, NO_VECTOR)));
        r.write(0x16, 2, 2).unwrap();
        assert_eq!(r.write(0x1a, 2, 1), Ok(Request::Nothing), "no such queue");
        assert_eq!(read(&r, 0x1a, 2), u64::from(NO_VECTOR));
        assert_eq!(read(&r, 0x18, 2), 0);
    }

    #[test]
    fn fields_have_their_widths() {
        let mut r = registers();
        for offset in 0..0x48 {
            for len in [1, 2, 4, 8] {
                let read = r.read(offset, len, 0, false);
                let write = r.write(offset, len, 0);
                assert_eq!(read.is_ok(), write.is_ok(), "{offset:#x} {len}");
            }
        }
        assert!(r.read(0x12, 4, 0, false).is_err());
        assert!(r.read(0x3c, 2, 0, false).is_err());
    }
}
