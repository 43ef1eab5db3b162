//! Copies between items and guest memory.

use crate::item::StoredItem;
use guest_memory::GuestMemory;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

const CONTROL_ERROR: u32 = 1;
const CONTROL_READ: u32 = 2;
const CONTROL_SKIP: u32 = 4;
const CONTROL_SELECT: u32 = 8;
const CONTROL_WRITE: u32 = 16;

/// The size in bytes of the buffer for reads of files.
const CHUNK: usize = 256 << 10;

/// The maximum number of zeros that a read past the end of an item returns, in bytes. Drivers need only a few, and a
/// request must not block a VP for seconds.
const MAX_PADDING: u64 = 1 << 20;

/// The operation of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// Only select an item.
    Nothing,
    Read,
    Write,
    Skip,
}

/// A descriptor: 16 bytes in guest memory, big-endian.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) select: Option<u16>,
    pub(crate) transfer: Transfer,
    pub(crate) len: u32,
    pub(crate) buffer: GuestAddress,
}

/// Why a transfer failed, perhaps after a part of it was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("the buffer is not in guest memory")]
    Memory(#[from] vm_memory::GuestMemoryError),
    #[error("cannot read the item's file")]
    File(#[from] std::io::Error),
    #[error("the item is not writable in this range")]
    NotWritable,
    #[error("the request extends {0} bytes past the end of the item; the limit is {MAX_PADDING}")]
    PastEnd(u64),
}

pub(crate) fn read_descriptor(
    memory: &GuestMemory,
    at: GuestAddress,
) -> Result<Descriptor, vm_memory::GuestMemoryError> {
    let mut bytes = [0; 16];
    memory.map().read_slice(&mut bytes, at)?;
    let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
    let control = word(0);
    let transfer = if control & CONTROL_READ != 0 {
        Transfer::Read
    } else if control & CONTROL_WRITE != 0 {
        Transfer::Write
    } else if control & CONTROL_SKIP != 0 {
        Transfer::Skip
    } else {
        Transfer::Nothing
    };
    Ok(Descriptor {
        select: (control & CONTROL_SELECT != 0).then_some((control >> 16) as u16),
        transfer,
        len: word(4),
        buffer: GuestAddress(u64::from(word(8)) << 32 | u64::from(word(12))),
    })
}

/// Reports the completion of a descriptor to the guest.
pub(crate) fn complete(
    memory: &GuestMemory,
    at: GuestAddress,
    result: &Result<(), TransferError>,
) -> Result<(), vm_memory::GuestMemoryError> {
    let control = match result {
        Ok(()) => 0,
        Err(_) => CONTROL_ERROR,
    };
    memory.map().write_slice(&control.to_be_bytes(), at)
}

/// Copies `len` bytes of `item` from `offset` on into guest memory, with zeros past its end.
pub(crate) fn read(
    memory: &GuestMemory,
    item: Option<&StoredItem>,
    offset: u64,
    len: u64,
    buffer: GuestAddress,
) -> Result<(), TransferError> {
    let available = item.map_or(0, |item| item.len().saturating_sub(offset).min(len));
    let padding = len - available;
    if padding > MAX_PADDING {
        return Err(TransferError::PastEnd(padding));
    }
    if let Some(item) = item.filter(|_| available > 0) {
        match item.as_bytes() {
            Some(bytes) => {
                // No overflow: the range is within the item, because `available` is not 0.
                let part = &bytes[offset as usize..(offset + available) as usize];
                memory.map().write_slice(part, buffer)?;
            }
            None => read_file(memory, item, offset, available, buffer)?,
        }
    }
    let zeros = [0; 4096];
    let mut done = available;
    while done < len {
        let count = (len - done).min(zeros.len() as u64);
        let at = advance(buffer, done)?;
        memory.map().write_slice(&zeros[..count as usize], at)?;
        done += count;
    }
    Ok(())
}

fn read_file(
    memory: &GuestMemory,
    item: &StoredItem,
    offset: u64,
    len: u64,
    buffer: GuestAddress,
) -> Result<(), TransferError> {
    let mut chunk = vec![0; len.min(CHUNK as u64) as usize];
    let mut done = 0;
    while done < len {
        let count = (len - done).min(chunk.len() as u64);
        let part = &mut chunk[..count as usize];
        item.content.read_at(offset + done, part)?;
        memory.map().write_slice(part, advance(buffer, done)?)?;
        done += count;
    }
    Ok(())
}

/// Copies `len` bytes of guest memory to `offset` in `item`. Fails if they do not fit.
pub(crate) fn write(
    memory: &GuestMemory,
    item: Option<&mut StoredItem>,
    offset: u64,
    len: u64,
    buffer: GuestAddress,
) -> Result<(), TransferError> {
    let writable = item.and_then(|item| item.writable.as_mut());
    let writable = writable.ok_or(TransferError::NotWritable)?;
    let mut bytes = writable.bytes.clone();
    let end = offset.saturating_add(len);
    let part = usize::try_from(offset)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(start, end)| bytes.get_mut(start..end));
    memory
        .map()
        .read_slice(part.ok_or(TransferError::NotWritable)?, buffer)?;
    writable.set(bytes);
    Ok(())
}

fn advance(at: GuestAddress, by: u64) -> Result<GuestAddress, TransferError> {
    let address = at.0.checked_add(by).map(GuestAddress);
    address.ok_or_else(|| vm_memory::GuestMemoryError::InvalidGuestAddress(at).into())
}
