//! A disk in memory.

use super::BlockDevice;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// A disk in memory. A clone is another handle to the same disk.
#[derive(Debug, Clone)]
pub struct MemoryDevice {
    sector_size: u32,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl MemoryDevice {
    /// A zeroed disk of `len` bytes. A partial sector at the end is not accessible.
    pub fn new(sector_size: u32, len: usize) -> Self {
        Self::with_bytes(sector_size, vec![0; len])
    }

    /// A disk with this content.
    pub fn with_bytes(sector_size: u32, bytes: Vec<u8>) -> Self {
        Self {
            sector_size,
            bytes: Arc::new(Mutex::new(bytes)),
        }
    }

    /// Calls `f` with the content, to inspect or change it.
    pub fn with<R>(&self, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        f(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy of the content.
    pub fn to_vec(&self) -> Vec<u8> {
        self.with(|bytes| bytes.clone())
    }
}

fn range(offset: u64, len: usize, size: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok();
    match start.and_then(|start| Some(start..start.checked_add(len)?)) {
        Some(range) if range.end <= size => Ok(range),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{len} bytes at {offset} are outside the disk of {size} bytes"),
        )),
    }
}

impl BlockDevice for MemoryDevice {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn sector_count(&self) -> u64 {
        self.with(|bytes| bytes.len() as u64)
            .checked_div(u64::from(self.sector_size))
            .unwrap_or(0)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with(|bytes| {
            let range = range(offset, buf.len(), bytes.len())?;
            buf.copy_from_slice(&bytes[range]);
            Ok(())
        })
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.with(|bytes| {
            let range = range(offset, buf.len(), bytes.len())?;
            bytes[range].copy_from_slice(buf);
            Ok(())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
