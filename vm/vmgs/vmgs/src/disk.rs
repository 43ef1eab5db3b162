//! A device as the store uses it: any byte range can be read, and errors say which.

use crate::alloc::Extent;
use crate::device::BlockDevice;
use crate::device::Geometry;
use crate::error::Error;
use vmgs_format::BLOCK_SIZE;

/// The most bytes given to the device in one request.
const MAX_TRANSFER: usize = 1 << 20;

pub(crate) struct Disk {
    device: Box<dyn BlockDevice>,
    pub(crate) geometry: Geometry,
}

impl Disk {
    pub(crate) fn new(device: Box<dyn BlockDevice>) -> Result<Self, Error> {
        let geometry = Geometry::of(&*device)?;
        Ok(Self { device, geometry })
    }

    pub(crate) fn device(&mut self) -> &mut dyn BlockDevice {
        &mut *self.device
    }

    pub(crate) fn into_device(self) -> Box<dyn BlockDevice> {
        self.device
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.device.is_read_only()
    }

    fn read_sectors(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        let mut position = offset;
        for piece in buf.chunks_mut(MAX_TRANSFER) {
            self.device
                .read_at(position, piece)
                .map_err(|source| Error::Read {
                    offset: position,
                    len: piece.len(),
                    source,
                })?;
            position += piece.len() as u64;
        }
        Ok(())
    }

    /// Fills `buf` from byte `offset`, wherever that is in a sector.
    pub(crate) fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        let sector = self.geometry.sector_size as usize;
        let skip = (offset % sector as u64) as usize;
        let mut bounce = [0; 4096];
        let bounce = &mut bounce[..sector];
        let (head, rest) = if skip == 0 {
            (0, buf)
        } else {
            let head = buf.len().min(sector - skip);
            self.read_sectors(offset - skip as u64, bounce)?;
            let (first, rest) = buf.split_at_mut(head);
            first.copy_from_slice(&bounce[skip..skip + head]);
            (head, rest)
        };
        let whole = rest.len() / sector * sector;
        let (body, tail) = rest.split_at_mut(whole);
        let offset = offset + head as u64;
        self.read_sectors(offset, body)?;
        if !tail.is_empty() {
            self.read_sectors(offset + whole as u64, bounce)?;
            tail.copy_from_slice(&bounce[..tail.len()]);
        }
        Ok(())
    }

    /// Writes `buf` at `offset`, the start of a sector; the rest of its last sector becomes zero.
    pub(crate) fn write(&mut self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        let sector = self.geometry.sector_size as usize;
        let (body, tail) = buf.split_at(buf.len() / sector * sector);
        let mut position = offset;
        for piece in body.chunks(MAX_TRANSFER) {
            self.write_piece(position, piece)?;
            position += piece.len() as u64;
        }
        if !tail.is_empty() {
            let mut bounce = [0; 4096];
            bounce[..tail.len()].copy_from_slice(tail);
            self.write_piece(position, &bounce[..sector])?;
        }
        Ok(())
    }

    fn write_piece(&mut self, offset: u64, piece: &[u8]) -> Result<(), Error> {
        self.device
            .write_at(offset, piece)
            .map_err(|source| Error::Write {
                offset,
                len: piece.len(),
                source,
            })
    }

    /// Fills blocks with zeros.
    pub(crate) fn zero(&mut self, extent: Extent) -> Result<(), Error> {
        let zeros = [0; 16 * BLOCK_SIZE as usize];
        let mut block = u64::from(extent.start);
        while block < extent.end() {
            let blocks = (extent.end() - block).min(16);
            let len = (blocks * u64::from(BLOCK_SIZE)) as usize;
            self.write_piece(block * u64::from(BLOCK_SIZE), &zeros[..len])?;
            block += blocks;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.device.flush().map_err(Error::Flush)
    }
}

/// The byte at which a block starts.
pub(crate) fn byte_of(block: u32) -> u64 {
    u64::from(block) * u64::from(BLOCK_SIZE)
}
