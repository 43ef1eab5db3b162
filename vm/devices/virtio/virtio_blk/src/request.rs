//! Parses requests of drivers (5.2.6) to operations of the disk.

use crate::config::MAX_RANGE_SECTORS;
use crate::config::MAX_RANGES;
use crate::config::SERIAL_LEN;
use crate::config::has;
use disk_backend::Buffers;
use disk_backend::DiskOperation;
use disk_backend::Extent;
use disk_backend::SECTOR;
use disk_backend::Space;
use guest_memory::GuestMemory;
use std::sync::Arc;
use virtio::DescriptorChain;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_DISCARD;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES;
use virtio_bindings::virtio_blk::VIRTIO_BLK_S_IOERR;
use virtio_bindings::virtio_blk::VIRTIO_BLK_S_OK;
use virtio_bindings::virtio_blk::VIRTIO_BLK_S_UNSUPP;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_DISCARD;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_FLUSH;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_GET_ID;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_IN;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_OUT;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES;
use virtio_bindings::virtio_blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// `struct virtio_blk_req` up to the data.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

const HEADER_LEN: u32 = size_of::<Header>() as u32;

/// `struct virtio_blk_discard_write_zeroes`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Range {
    sector: U64,
    sectors: U32,
    flags: U32,
}

const RANGE_LEN: u32 = size_of::<Range>() as u32;

/// The status byte of a request.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum BlkStatus {
    Ok,
    /// It failed, or is malformed.
    IoError,
    /// The device does not know it or does not offer it.
    Unsupported,
}

impl BlkStatus {
    pub(crate) fn to_byte(self) -> u8 {
        (match self {
            Self::Ok => VIRTIO_BLK_S_OK,
            Self::IoError => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        }) as u8
    }
}

/// What a request requires.
#[derive(Debug)]
pub(crate) enum Request {
    /// One or more operations, in any order. The request completes with the last one, and fails if one fails.
    Disk(Vec<DiskOperation>),
    /// Nothing of the disk: the request completes with this status.
    Done(BlkStatus),
}

/// Parses the requests of one queue.
pub(crate) struct RequestParser {
    pub(crate) memory: GuestMemory,
    /// The same memory, for operations to keep mapped.
    pub(crate) map: Arc<GuestMemoryMmap>,
    pub(crate) features: u64,
    pub(crate) serial: [u8; SERIAL_LEN],
}

impl RequestParser {
    /// Parses the request in `chain`.
    pub(crate) fn request(&self, chain: &DescriptorChain) -> Request {
        self.parse(chain).unwrap_or_else(Request::Done)
    }

    fn parse(&self, chain: &DescriptorChain) -> Result<Request, BlkStatus> {
        // The last device-writable byte is the status.
        let data_in = chain
            .writable
            .len()
            .checked_sub(1)
            .ok_or(BlkStatus::IoError)?;
        let mut header = [0; HEADER_LEN as usize];
        if chain.readable.read(&self.memory, 0, &mut header) != header.len() {
            return Err(BlkStatus::IoError);
        }
        let header = Header::read_from_bytes(&header).map_err(|_| BlkStatus::IoError)?;
        let data_out = chain.readable.len() - HEADER_LEN;
        let offset = header.sector.get().checked_mul(SECTOR);
        match header.kind.get() {
            VIRTIO_BLK_T_IN => {
                let offset = offset.ok_or(BlkStatus::IoError)?;
                let buffers = self.buffers(&chain.writable, 0, data_in)?;
                Ok(Request::Disk(vec![DiskOperation::Read { offset, buffers }]))
            }
            VIRTIO_BLK_T_OUT => {
                let offset = offset.ok_or(BlkStatus::IoError)?;
                let buffers = self.buffers(&chain.readable, HEADER_LEN, data_out)?;
                Ok(Request::Disk(vec![DiskOperation::Write {
                    offset,
                    buffers,
                }]))
            }
            VIRTIO_BLK_T_FLUSH => Ok(Request::Disk(vec![DiskOperation::Flush])),
            VIRTIO_BLK_T_GET_ID => {
                let len = self.serial.len().min(data_in as usize);
                chain.writable.write(&self.memory, 0, &self.serial[..len]);
                Err(BlkStatus::Ok)
            }
            VIRTIO_BLK_T_DISCARD if has(self.features, VIRTIO_BLK_F_DISCARD) => {
                self.ranges(chain, data_out, |extent, flags| match flags {
                    0 => Ok(DiskOperation::Discard { extent }),
                    _ => Err(BlkStatus::Unsupported),
                })
            }
            VIRTIO_BLK_T_WRITE_ZEROES if has(self.features, VIRTIO_BLK_F_WRITE_ZEROES) => self
                .ranges(chain, data_out, |extent, flags| {
                    let space = match flags {
                        0 => Space::Keep,
                        VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP => Space::Release,
                        _ => return Err(BlkStatus::Unsupported),
                    };
                    Ok(DiskOperation::WriteZeroes { extent, space })
                }),
            _ => Err(BlkStatus::Unsupported),
        }
    }

    /// The `len` bytes of data starting at `start`.
    fn buffers(
        &self,
        buffers: &virtio::ChainBuffers,
        start: u32,
        len: u32,
    ) -> Result<Buffers, BlkStatus> {
        if !u64::from(len).is_multiple_of(SECTOR) {
            return Err(BlkStatus::IoError);
        }
        let pieces = buffers
            .range(start, len)
            .map(|piece| (GuestAddress(piece.gpa), piece.len.into()));
        Buffers::guest(&self.map, pieces).map_err(|_| BlkStatus::IoError)
    }

    /// An operation for each range in the request's data.
    fn ranges(
        &self,
        chain: &DescriptorChain,
        len: u32,
        operation: impl Fn(Extent, u32) -> Result<DiskOperation, BlkStatus>,
    ) -> Result<Request, BlkStatus> {
        if len == 0 || !len.is_multiple_of(RANGE_LEN) || len / RANGE_LEN > MAX_RANGES {
            return Err(BlkStatus::IoError);
        }
        let mut operations = Vec::new();
        let mut bytes = [0; RANGE_LEN as usize];
        for at in (HEADER_LEN..HEADER_LEN + len).step_by(bytes.len()) {
            chain.readable.read(&self.memory, at, &mut bytes);
            let range = Range::read_from_bytes(&bytes).map_err(|_| BlkStatus::IoError)?;
            let extent = Extent {
                offset: range
                    .sector
                    .get()
                    .checked_mul(SECTOR)
                    .ok_or(BlkStatus::IoError)?,
                len: u64::from(range.sectors.get()) * SECTOR,
            };
            let operation = operation(extent, range.flags.get())?;
            if range.sectors.get() > MAX_RANGE_SECTORS {
                return Err(BlkStatus::IoError);
            }
            operations.push(operation);
        }
        Ok(Request::Disk(operations))
    }
}
