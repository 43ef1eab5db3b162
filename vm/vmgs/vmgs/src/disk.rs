//! Access to the device by byte range, with errors that name the range.

use crate::alloc::Extent;
use crate::device::BlockDevice;
use crate::device::Geometry;
use crate::error::Error;
use std::io;
use vmgs_format::BLOCK_SIZE;

/// Maximum length in bytes of one request to the device.
const MAX_TRANSFER: usize = 1 << 20;

pub(crate) struct Disk {
    device: Box<dyn BlockDevice>,
    pub(crate) geometry: Geometry,
    /// Bytes written since the last flush.
    unflushed: u64,
}

impl Disk {
    pub(crate) fn new(device: Box<dyn BlockDevice>) -> Result<Self, Error> {
        let geometry = Geometry::of(&*device)?;
        Ok(Self {
            device,
            geometry,
            unflushed: 0,
        })
    }

    pub(crate) fn device(&mut self) -> &mut dyn BlockDevice {
        &mut *self.device
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

    /// Fills `buf` with the bytes from `offset` on, which need not be sector-aligned.
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

    /// Writes `buf` at `offset`, the start of a sector. The rest of the last sector becomes zero.
    pub(crate) fn write(&mut self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        self.write_units(offset, buf, self.geometry.sector_size)
    }

    /// Writes `buf` at `offset`, the start of a block. The rest of the last block becomes zero, so that
    /// no previous content remains in it and a cache need not read it first.
    pub(crate) fn write_blocks(&mut self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        self.write_units(offset, buf, BLOCK_SIZE)
    }

    fn write_units(&mut self, offset: u64, buf: &[u8], unit: u32) -> Result<(), Error> {
        let unit = unit as usize;
        let (body, tail) = buf.split_at(buf.len() / unit * unit);
        let mut position = offset;
        for piece in body.chunks(MAX_TRANSFER) {
            self.write_piece(position, piece)?;
            position += piece.len() as u64;
        }
        if !tail.is_empty() {
            let mut bounce = [0; BLOCK_SIZE as usize];
            bounce[..tail.len()].copy_from_slice(tail);
            self.write_piece(position, &bounce[..unit])?;
        }
        Ok(())
    }

    fn write_piece(&mut self, offset: u64, piece: &[u8]) -> Result<(), Error> {
        let len = piece.len();
        let result = self.device.write_at(offset, piece);
        result.map_err(|source| self.write_error(offset, len as u64, source))?;
        self.unflushed += len as u64;
        Ok(())
    }

    fn write_error(&self, offset: u64, len: u64, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.full(len, source),
            io::ErrorKind::FileTooLarge => Error::FileSizeLimit {
                path: self.device.path().map(Into::into),
                offset,
                len,
                source,
            },
            _ => Error::Write {
                offset,
                len,
                source,
            },
        }
    }

    fn full(&self, needed: u64, source: io::Error) -> Error {
        Error::DiskFull {
            path: self.device.path().map(Into::into),
            needed,
            source,
        }
    }

    /// Where the sector is that has the next bytes at or after `offset` that may not be zero.
    pub(crate) fn next_data(&mut self, offset: u64) -> Result<Option<u64>, Error> {
        let sector = u64::from(self.geometry.sector_size);
        if offset >= self.geometry.len {
            return Ok(None);
        }
        let found = self
            .device
            .next_data(offset)
            .map_err(|source| Error::Read {
                offset,
                len: 0,
                source,
            })?;
        let found = found.map(|at| (at - at % sector).max(offset));
        Ok(found.filter(|at| *at < self.geometry.len))
    }

    /// Gets all the space of the device from the host.
    pub(crate) fn allocate(&mut self) -> Result<(), Error> {
        let result = self.device.allocate();
        result.map_err(|source| self.write_error(0, self.geometry.len, source))
    }

    /// Fills the blocks with zeros, but leaves holes, which are zero, as they are.
    pub(crate) fn wipe(&mut self, extent: Extent) -> Result<(), Error> {
        const PIECE: u64 = 16 * BLOCK_SIZE as u64;
        let zeros = [0; PIECE as usize];
        let end = extent.end() * u64::from(BLOCK_SIZE);
        let mut position = byte_of(extent.start);
        while let Some(at) = self.next_data(position)?.filter(|at| *at < end) {
            let len = (end - at).min(PIECE);
            self.write_piece(at, &zeros[..len as usize])?;
            position = at + len;
        }
        Ok(())
    }

    /// Fills the blocks with zeros, except for the sectors with their first `spared` bytes.
    pub(crate) fn zero(&mut self, extent: Extent, spared: u64) -> Result<(), Error> {
        let zeros = [0; 16 * BLOCK_SIZE as usize];
        let end = extent.end() * u64::from(BLOCK_SIZE);
        let spared = spared.next_multiple_of(u64::from(self.geometry.sector_size));
        let mut position = byte_of(extent.start) + spared;
        while position < end {
            let len = (end - position).min(zeros.len() as u64);
            self.write_piece(position, &zeros[..len as usize])?;
            position += len;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let result = self.device.flush();
        result.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.full(self.unflushed, source)
            }
            _ => Error::Flush(source),
        })?;
        self.unflushed = 0;
        Ok(())
    }
}

/// Byte offset of a block.
pub(crate) fn byte_of(block: u32) -> u64 {
    u64::from(block) * u64::from(BLOCK_SIZE)
}
