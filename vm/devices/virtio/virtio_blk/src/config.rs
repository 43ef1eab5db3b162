//! Features and the configuration structure (5.2.3, 5.2.4).

use disk_backend::DiskAccess;
use disk_backend::DiskInfo;
use disk_backend::SECTOR;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_BLK_SIZE;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_CONFIG_WCE;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_DISCARD;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_MQ;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_RO;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_SEG_MAX;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_TOPOLOGY;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES;
use zerocopy::FromZeros as _;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// The maximum number of queues of a device.
pub const MAX_QUEUES: u16 = 64;
/// The length of a serial number in bytes.
pub const SERIAL_LEN: usize = 20;
/// Entries in a queue's rings.
pub(crate) const QUEUE_SIZE: u16 = 256;
/// The maximum number of ranges in one request to discard or write zeroes.
pub(crate) const MAX_RANGES: u32 = 16;
/// The maximum number of sectors in such a range: 1 GiB, which bounds its time.
pub(crate) const MAX_RANGE_SECTORS: u32 = 1 << 21;
/// The offset of the field `writeback`.
pub(crate) const WRITEBACK_OFFSET: u32 = 32;

/// How a disk is presented to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlkConfig {
    queues: u16,
    serial: [u8; SERIAL_LEN],
}

/// Why a configuration is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlkConfigError {
    /// The number of queues is out of range.
    #[error("a disk has 1 to {MAX_QUEUES} queues, not {queues}")]
    Queues {
        /// The number asked for.
        queues: u16,
    },
    /// The serial number is too long or has characters that are not printable.
    #[error("the serial number {serial:?} must have 1 to {SERIAL_LEN} printable ASCII characters")]
    Serial {
        /// The serial number asked for.
        serial: String,
    },
}

impl Default for BlkConfig {
    fn default() -> Self {
        Self {
            queues: 1,
            serial: [0; SERIAL_LEN],
        }
    }
}

impl BlkConfig {
    /// Sets the number of queues. Each is processed by its own thread.
    pub fn with_queues(mut self, queues: u16) -> Result<Self, BlkConfigError> {
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(BlkConfigError::Queues { queues });
        }
        self.queues = queues;
        Ok(self)
    }

    /// Sets the serial number.
    pub fn with_serial(mut self, serial: &str) -> Result<Self, BlkConfigError> {
        let bytes = serial.as_bytes();
        if !(1..=SERIAL_LEN).contains(&bytes.len()) || !bytes.iter().all(u8::is_ascii_graphic) {
            let serial = serial.to_owned();
            return Err(BlkConfigError::Serial { serial });
        }
        self.serial = [0; SERIAL_LEN];
        self.serial[..bytes.len()].copy_from_slice(bytes);
        Ok(self)
    }

    /// The number of queues.
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// The serial number for the driver, padded with zeroes: the configured one, else derived from the ID of `disk`.
    pub(crate) fn serial_of(&self, disk: &DiskInfo) -> [u8; SERIAL_LEN] {
        let mut serial = self.serial;
        if serial[0] == 0
            && let Some(id) = disk.id
        {
            let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            serial.copy_from_slice(&hex.as_bytes()[..SERIAL_LEN]);
        }
        serial
    }
}

pub(crate) fn has(features: u64, bit: u32) -> bool {
    features >> bit & 1 == 1
}

/// The features offered for `disk`.
pub(crate) fn features(disk: &DiskInfo, config: &BlkConfig) -> u64 {
    let mut bits = vec![
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_CONFIG_WCE,
    ];
    if config.queues > 1 {
        bits.push(VIRTIO_BLK_F_MQ);
    }
    if disk.access == DiskAccess::ReadOnly {
        bits.push(VIRTIO_BLK_F_RO);
    } else {
        bits.push(VIRTIO_BLK_F_WRITE_ZEROES);
        if disk.discard_granularity.is_some() {
            bits.push(VIRTIO_BLK_F_DISCARD);
        }
    }
    bits.iter().fold(0, |features, bit| features | 1 << bit)
}

/// `struct virtio_blk_config`.
#[derive(IntoBytes, Immutable, zerocopy::FromZeros)]
#[repr(C)]
struct Layout {
    capacity: U64,
    size_max: U32,
    seg_max: U32,
    cylinders: U16,
    heads: u8,
    sectors: u8,
    blk_size: U32,
    physical_block_exp: u8,
    alignment_offset: u8,
    min_io_size: U16,
    opt_io_size: U32,
    writeback: u8,
    unused0: u8,
    num_queues: U16,
    max_discard_sectors: U32,
    max_discard_seg: U32,
    discard_sector_alignment: U32,
    max_write_zeroes_sectors: U32,
    max_write_zeroes_seg: U32,
    write_zeroes_may_unmap: u8,
    unused1: [u8; 3],
}

/// The length of the configuration structure in bytes.
pub(crate) const CONFIG_LEN: usize = size_of::<Layout>();
const _: () = assert!(CONFIG_LEN == 60);

/// The configuration structure.
pub(crate) fn layout(disk: &DiskInfo, config: &BlkConfig, writeback: bool) -> [u8; CONFIG_LEN] {
    let mut layout = Layout::new_zeroed();
    let per_block = disk.physical_block / disk.logical_block;
    layout.capacity = disk.sectors.into();
    // A chain has at most as many descriptors as the queue has entries; header and status take two.
    layout.seg_max = u32::from(QUEUE_SIZE - 2).into();
    layout.blk_size = disk.logical_block.into();
    layout.physical_block_exp = per_block.max(1).ilog2() as u8;
    layout.min_io_size = u16::try_from(per_block).unwrap_or(1).max(1).into();
    layout.writeback = writeback.into();
    layout.num_queues = config.queues.into();
    if disk.access == DiskAccess::ReadWrite {
        if let Some(granularity) = disk.discard_granularity {
            layout.max_discard_sectors = MAX_RANGE_SECTORS.into();
            layout.max_discard_seg = MAX_RANGES.into();
            layout.discard_sector_alignment = (granularity / SECTOR as u32).max(1).into();
        }
        layout.max_write_zeroes_sectors = MAX_RANGE_SECTORS.into();
        layout.max_write_zeroes_seg = MAX_RANGES.into();
        layout.write_zeroes_may_unmap = 1;
    }
    let mut bytes = [0; CONFIG_LEN];
    bytes.copy_from_slice(layout.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> DiskInfo {
        DiskInfo {
            name: "disk".into(),
            sectors: 0x1_0000_0001,
            logical_block: 512,
            physical_block: 4096,
            access: DiskAccess::ReadWrite,
            discard_granularity: Some(4096),
            id: None,
        }
    }

    #[test]
    fn the_structure_has_the_specified_layout() {
        let config = BlkConfig::default().with_queues(4).unwrap();
        let bytes = layout(&disk(), &config, true);
        assert_eq!(bytes[..8], 0x1_0000_0001_u64.to_le_bytes());
        assert_eq!(bytes[12..16], 254u32.to_le_bytes());
        assert_eq!(bytes[20..24], 512u32.to_le_bytes());
        assert_eq!(bytes[24..32], [3, 0, 8, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[WRITEBACK_OFFSET as usize], 1);
        assert_eq!(bytes[34..36], [4, 0]);
        assert_eq!(bytes[36..40], MAX_RANGE_SECTORS.to_le_bytes());
        assert_eq!(bytes[44..48], 8u32.to_le_bytes());
        assert_eq!(bytes[56], 1);
        let features = features(&disk(), &config);
        // SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES.
        assert_eq!(features, 0b111_1110_0100_0100);
    }

    #[test]
    fn large_sectors_are_the_guest_s_unit() {
        let mut disk = disk();
        disk.sectors = 0x1_0000_0008;
        disk.set_logical_block(4096).unwrap();
        let config = BlkConfig::default();
        let bytes = layout(&disk, &config, true);
        // The capacity and the alignment of discards are in units of 512 bytes, the rest in blocks.
        assert_eq!(bytes[..8], 0x1_0000_0008_u64.to_le_bytes());
        assert_eq!(bytes[20..24], 4096u32.to_le_bytes());
        assert_eq!(bytes[24..32], [0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[44..48], 8u32.to_le_bytes());
    }

    #[test]
    fn a_read_only_disk_offers_no_feature_that_changes_it() {
        let disk = DiskInfo {
            access: DiskAccess::ReadOnly,
            ..disk()
        };
        let config = BlkConfig::default();
        let features = features(&disk, &config);
        assert_eq!(features, 0b000_1110_0110_0100);
        assert!(layout(&disk, &config, true)[36..].iter().all(|&b| b == 0));
    }

    #[test]
    fn serial_numbers_and_queues_have_limits() {
        let config = BlkConfig::default();
        for bad in ["", "has space", "é", "123456789012345678901"] {
            assert!(config.clone().with_serial(bad).is_err(), "{bad}");
        }
        let serial = config.clone().with_serial("12345678901234567890").unwrap();
        assert_eq!(&serial.serial_of(&disk()), b"12345678901234567890");
        let id = Some([0xab; 16]);
        let with_id = DiskInfo { id, ..disk() };
        assert_eq!(&serial.serial_of(&with_id), b"12345678901234567890");
        assert_eq!(&config.serial_of(&with_id), b"abababababababababab");
        assert_eq!(config.serial_of(&disk()), [0; 20]);
        assert!(config.clone().with_queues(0).is_err());
        assert!(config.with_queues(MAX_QUEUES + 1).is_err());
    }
}
