//! Sectors in memory of a disk most of whose sectors are elsewhere or zero.

use crate::Buffers;
use crate::Extent;
use crate::SECTOR;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::TryReserveError;

/// Sectors per chunk: one per bit of [`Chunk::present`].
const SECTORS: u64 = 128;
/// Bytes per chunk, the unit of allocation.
pub(crate) const CHUNK: u64 = SECTORS * SECTOR;
/// The number of locks that chunks are distributed over.
const SHARDS: usize = 64;

#[derive(Default)]
struct Chunk {
    /// One bit per sector: whether it is in this map.
    present: u128,
    /// The data; without it, sectors that are present are zero.
    data: Option<Box<[u8]>>,
}

/// A map from sectors to bytes.
pub(crate) struct SparseSectors {
    shards: Vec<Mutex<HashMap<u64, Chunk>>>,
}

/// The part of an extent that is in one chunk.
struct Span {
    chunk: u64,
    /// The first sector within the chunk.
    sector: u64,
    sectors: u64,
    /// The offset in the extent, in bytes.
    at: u64,
}

impl Span {
    fn mask(&self) -> u128 {
        let ones = u128::MAX >> (SECTORS - self.sectors);
        ones << self.sector
    }

    fn bytes(&self) -> std::ops::Range<usize> {
        let start = self.sector * SECTOR;
        start as usize..(start + self.sectors * SECTOR) as usize
    }

    fn is_whole(&self) -> bool {
        self.sectors == SECTORS
    }
}

fn spans(extent: Extent) -> impl Iterator<Item = Span> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == extent.len {
            return None;
        }
        let offset = extent.offset + at;
        let sector = offset % CHUNK / SECTOR;
        let sectors = (SECTORS - sector).min((extent.len - at) / SECTOR);
        let span = Span {
            chunk: offset / CHUNK,
            sector,
            sectors,
            at,
        };
        at += sectors * SECTOR;
        Some(span)
    })
}

fn zeroed_chunk() -> Result<Box<[u8]>, TryReserveError> {
    let mut data = Vec::new();
    data.try_reserve_exact(CHUNK as usize)?;
    data.resize(CHUNK as usize, 0);
    Ok(data.into_boxed_slice())
}

/// All extents and offsets are multiples of [`SECTOR`].
impl SparseSectors {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, chunk: u64) -> &Mutex<HashMap<u64, Chunk>> {
        &self.shards[(chunk % SHARDS as u64) as usize]
    }

    /// Copies the present sectors starting at `offset` to `buffers`. Calls `absent` with the range in `buffers` of each
    /// run of absent sectors.
    pub(crate) fn read(&self, offset: u64, buffers: &Buffers, mut absent: impl FnMut(Extent)) {
        let len = buffers.len();
        let mut gap = Extent { offset: 0, len: 0 };
        for span in spans(Extent { offset, len }) {
            let shard = self.shard(span.chunk).lock();
            let chunk = shard.get(&span.chunk);
            let present = chunk.map_or(0, |chunk| chunk.present);
            let mut sector = span.sector;
            let end = span.sector + span.sectors;
            while sector < end {
                let is_present = present >> sector & 1 == 1;
                let rest = present >> sector;
                let run = if is_present { !rest } else { rest }.trailing_zeros();
                let run = (end - sector).min(run.into());
                let at = span.at + (sector - span.sector) * SECTOR;
                let len = run * SECTOR;
                if !is_present {
                    // A run may continue from the previous chunk.
                    if gap.offset + gap.len == at {
                        gap.len += len;
                    } else {
                        if gap.len != 0 {
                            absent(gap);
                        }
                        gap = Extent { offset: at, len };
                    }
                } else if let Some(data) = chunk.and_then(|chunk| chunk.data.as_deref()) {
                    let start = (sector * SECTOR) as usize;
                    buffers.copy_from(at, &data[start..start + len as usize]);
                } else {
                    buffers.clear(at, len);
                }
                sector += run;
            }
        }
        if gap.len != 0 {
            absent(gap);
        }
    }

    /// The smallest extent within `extent` that has all its absent sectors, if there are any.
    pub(crate) fn absent(&self, extent: Extent) -> Option<Extent> {
        let mut absent: Option<Extent> = None;
        for span in spans(extent) {
            let shard = self.shard(span.chunk).lock();
            let present = shard.get(&span.chunk).map_or(0, |chunk| chunk.present);
            let missing = !present & span.mask();
            if missing == 0 {
                continue;
            }
            let sector = |n: u32| (span.chunk * SECTORS + u64::from(n)) * SECTOR;
            let first = sector(missing.trailing_zeros());
            let end = sector(u128::BITS - missing.leading_zeros());
            let offset = absent.map_or(first, |absent| absent.offset);
            let len = end - offset;
            absent = Some(Extent { offset, len });
        }
        absent
    }

    /// Writes `buffers` to the sectors starting at `offset`.
    pub(crate) fn write(&self, offset: u64, buffers: &Buffers) -> Result<(), TryReserveError> {
        let len = buffers.len();
        for span in spans(Extent { offset, len }) {
            let mut shard = self.shard(span.chunk).lock();
            shard.try_reserve(1)?;
            let chunk = shard.entry(span.chunk).or_default();
            let data = match &mut chunk.data {
                Some(data) => data,
                none => none.insert(zeroed_chunk()?),
            };
            buffers.copy_to(span.at, &mut data[span.bytes()]);
            chunk.present |= span.mask();
        }
        Ok(())
    }

    /// Makes the sectors of `extent` present and zero.
    pub(crate) fn zero(&self, extent: Extent) -> Result<(), TryReserveError> {
        for span in spans(extent) {
            let mut shard = self.shard(span.chunk).lock();
            shard.try_reserve(1)?;
            let chunk = shard.entry(span.chunk).or_default();
            chunk.present |= span.mask();
            if span.is_whole() {
                chunk.data = None;
            } else if let Some(data) = &mut chunk.data {
                data[span.bytes()].fill(0);
            }
        }
        Ok(())
    }

    /// Makes the sectors of `extent` absent.
    pub(crate) fn remove(&self, extent: Extent) {
        for span in spans(extent) {
            let mut shard = self.shard(span.chunk).lock();
            let Some(chunk) = shard.get_mut(&span.chunk) else {
                continue;
            };
            chunk.present &= !span.mask();
            if chunk.present == 0 {
                shard.remove(&span.chunk);
            } else if let Some(data) = &mut chunk.data {
                data[span.bytes()].fill(0);
            }
        }
    }

    /// Bytes of memory that are allocated for sectors.
    #[cfg(test)]
    pub(crate) fn allocated(&self) -> u64 {
        let allocated = |shard: &Mutex<HashMap<u64, Chunk>>| {
            let shard = shard.lock();
            shard.values().filter(|c| c.data.is_some()).count() as u64
        };
        self.shards.iter().map(allocated).sum::<u64>() * CHUNK
    }
}
