//! Requests as drivers make them (5.2.6), and what they ask of the disk.

use crate::config::MAX_RANGE_SECTORS;
use crate::config::MAX_RANGES;
use crate::config::SERIAL_LEN;
use crate::config::has;
use disk_backend::Buffers;
use disk_backend::Extent;
use disk_backend::Operation;
use disk_backend::SECTOR;
use disk_backend::Space;
use guest_memory::GuestMemory;
use std::sync::Arc;
use virtio::Chain;
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
pub(crate) enum Status {
    Ok,
    /// It failed, or was not as requests are.
    IoError,
    /// The device does not know or offer it.
    Unsupported,
}

impl Status {
    pub(crate) fn to_byte(self) -> u8 {
        (match self {
            Self::Ok => VIRTIO_BLK_S_OK,
            Self::IoError => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        }) as u8
    }
}

/// What a request comes to.
#[derive(Debug)]
pub(crate) enum Request {
    /// Operations, at least one, in any order. It ends with the last one, and fails if one does.
    Disk(Vec<Operation>),
    /// Nothing for the disk to do.
    Done(Status),
}

/// What requests are understood with.
pub(crate) struct Interpreter {
    pub(crate) memory: GuestMemory,
    /// The same memory, for operations to hold on to.
    pub(crate) map: Arc<GuestMemoryMmap>,
    pub(crate) features: u64,
    pub(crate) serial: [u8; SERIAL_LEN],
}

impl Interpreter {
    /// Reads the request in `chain`.
    pub(crate) fn request(&self, chain: &Chain) -> Request {
        self.parse(chain).unwrap_or_else(Request::Done)
    }

    fn parse(&self, chain: &Chain) -> Result<Request, Status> {
        // The last byte that the device writes is the status.
        let data_in = chain.writable.len().checked_sub(1).ok_or(Status::IoError)?;
        let mut header = [0; HEADER_LEN as usize];
        if chain.readable.read(&self.memory, 0, &mut header) != header.len() {
            return Err(Status::IoError);
        }
        let header = Header::read_from_bytes(&header).map_err(|_| Status::IoError)?;
        let data_out = chain.readable.len() - HEADER_LEN;
        let offset = header.sector.get().checked_mul(SECTOR);
        match header.kind.get() {
            VIRTIO_BLK_T_IN => {
                let offset = offset.ok_or(Status::IoError)?;
                let buffers = self.buffers(&chain.writable, 0, data_in)?;
                Ok(Request::Disk(vec![Operation::Read { offset, buffers }]))
            }
            VIRTIO_BLK_T_OUT => {
                let offset = offset.ok_or(Status::IoError)?;
                let buffers = self.buffers(&chain.readable, HEADER_LEN, data_out)?;
                Ok(Request::Disk(vec![Operation::Write { offset, buffers }]))
            }
            VIRTIO_BLK_T_FLUSH => Ok(Request::Disk(vec![Operation::Flush])),
            VIRTIO_BLK_T_GET_ID => {
                let len = self.serial.len().min(data_in as usize);
                chain.writable.write(&self.memory, 0, &self.serial[..len]);
                Err(Status::Ok)
            }
            VIRTIO_BLK_T_DISCARD if has(self.features, VIRTIO_BLK_F_DISCARD) => {
                self.ranges(chain, data_out, |extent, flags| match flags {
                    0 => Ok(Operation::Discard { extent }),
                    _ => Err(Status::Unsupported),
                })
            }
            VIRTIO_BLK_T_WRITE_ZEROES if has(self.features, VIRTIO_BLK_F_WRITE_ZEROES) => self
                .ranges(chain, data_out, |extent, flags| {
                    let space = match flags {
                        0 => Space::Keep,
                        VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP => Space::Release,
                        _ => return Err(Status::Unsupported),
                    };
                    Ok(Operation::WriteZeroes { extent, space })
                }),
            _ => Err(Status::Unsupported),
        }
    }

    /// `len` bytes of data from `start` on.
    fn buffers(&self, buffers: &virtio::Buffers, start: u32, len: u32) -> Result<Buffers, Status> {
        if !u64::from(len).is_multiple_of(SECTOR) {
            return Err(Status::IoError);
        }
        let pieces = buffers
            .range(start, len)
            .map(|piece| (GuestAddress(piece.gpa), piece.len.into()));
        Buffers::guest(&self.map, pieces).map_err(|_| Status::IoError)
    }

    /// An operation for each of the ranges in the request's data.
    fn ranges(
        &self,
        chain: &Chain,
        len: u32,
        operation: impl Fn(Extent, u32) -> Result<Operation, Status>,
    ) -> Result<Request, Status> {
        if len == 0 || !len.is_multiple_of(RANGE_LEN) || len / RANGE_LEN > MAX_RANGES {
            return Err(Status::IoError);
        }
        let mut operations = Vec::new();
        let mut bytes = [0; RANGE_LEN as usize];
        for at in (HEADER_LEN..HEADER_LEN + len).step_by(bytes.len()) {
            chain.readable.read(&self.memory, at, &mut bytes);
            let range = Range::read_from_bytes(&bytes).map_err(|_| Status::IoError)?;
            let extent = Extent {
                offset: range
                    .sector
                    .get()
                    .checked_mul(SECTOR)
                    .ok_or(Status::IoError)?,
                len: u64::from(range.sectors.get()) * SECTOR,
            };
            let operation = operation(extent, range.flags.get())?;
            if range.sectors.get() > MAX_RANGE_SECTORS {
                return Err(Status::IoError);
            }
            operations.push(operation);
        }
        Ok(Request::Disk(operations))
    }
}
