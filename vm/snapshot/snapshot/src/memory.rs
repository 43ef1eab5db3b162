//! Guest RAM in its file.

use crate::DamageKind;
use crate::Digest;
use crate::MemoryIndex;
use crate::VERSION;
use crate::WriteError;
use guest_memory::GuestMemory;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

/// The size of a chunk in bytes.
pub const CHUNK: u32 = 1 << 20;

/// The length of what follows RAM in its file, in bytes: the magic, at 8 the format version (4 bytes), at 16 the
/// snapshot's ID, at 32 the size of RAM (8 bytes), zeros.
pub(crate) const FOOTER: u64 = 4096;

const MAGIC: [u8; 8] = *b"OVMSNRAM";
const PAGE: usize = 4096;

fn footer(id: [u8; 16], size: u64) -> Vec<u8> {
    let mut footer = vec![0; FOOTER as usize];
    footer[..8].copy_from_slice(&MAGIC);
    footer[8..12].copy_from_slice(&VERSION.to_le_bytes());
    footer[16..32].copy_from_slice(&id);
    footer[32..40].copy_from_slice(&size.to_le_bytes());
    footer
}

fn is_zero(bytes: &[u8]) -> bool {
    // Without a branch for each word, so that it is done with vectors.
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words
        .iter()
        .fold(0, |all, word| all | u64::from_ne_bytes(*word));
    words == 0 && rest.iter().all(|byte| *byte == 0)
}

/// A part of a chunk that may have content.
struct Part {
    /// Its first byte in the file.
    offset: u64,
    gpa: u64,
    len: u64,
}

/// The parts of RAM that may have content, ascending. None is in two chunks.
fn parts(memory: &GuestMemory) -> Vec<Part> {
    let content = memory.content();
    let mut parts = Vec::new();
    let mut first = 0;
    for ram in memory.layout().ram() {
        for range in content.iter().filter(|range| ram.contains(range.start)) {
            let mut gpa = range.start;
            while gpa < range.end {
                let offset = first + (gpa - ram.start);
                let in_chunk = u64::from(CHUNK) - offset % u64::from(CHUNK);
                let len = in_chunk.min(range.end - gpa);
                parts.push(Part { offset, gpa, len });
                gpa += len;
            }
        }
        first += ram.len();
    }
    parts
}

/// What was written of guest RAM.
pub(crate) struct WrittenMemory {
    pub index: MemoryIndex,
    /// Bytes that are not holes.
    pub stored: u64,
}

/// Writes guest RAM to an empty file. `progress` is told how many bytes of how many were looked at.
pub(crate) fn write(
    file: &File,
    path: &Path,
    memory: &GuestMemory,
    id: [u8; 16],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<WrittenMemory, WriteError> {
    let io = |operation| {
        move |source: io::Error| WriteError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let size = memory.layout().ram_size();
    file.set_len(size + FOOTER).map_err(io("extend"))?;
    file.write_all_at(&footer(id, size), size)
        .map_err(io("write"))?;
    let parts = parts(memory);
    let total = parts.iter().map(|part| part.len).sum();
    let (mut done, mut stored) = (0, 0);
    let chunk_size = u64::from(CHUNK);
    let mut chunks = vec![None; size.div_ceil(chunk_size) as usize];
    let mut buffer = vec![0; CHUNK as usize];
    for parts in parts.chunk_by(|a, b| a.offset / chunk_size == b.offset / chunk_size) {
        let chunk = parts[0].offset / chunk_size;
        let start = chunk * chunk_size;
        let buffer = &mut buffer[..chunk_size.min(size - start) as usize];
        buffer.fill(0);
        for &Part { offset, gpa, len } in parts {
            let at = (offset - start) as usize;
            let into = &mut buffer[at..at + len as usize];
            let copied = memory.map().read_slice(into, GuestAddress(gpa));
            copied.map_err(|source| WriteError::Memory { gpa, source })?;
            done += len;
        }
        chunks[chunk as usize] = digest(buffer);
        stored += write_pages(file, buffer, start).map_err(io("write"))?;
        progress(done, total);
    }
    let index = MemoryIndex {
        id,
        chunk_size: CHUNK,
        memory_size: size,
        chunks,
    };
    Ok(WrittenMemory { index, stored })
}

/// The digest of a chunk, if it is not zero.
fn digest(chunk: &[u8]) -> Option<Digest> {
    (!is_zero(chunk)).then(|| Digest::of(chunk))
}

/// Writes the pages that are not zero at `offset` of the file. Returns their number of bytes.
pub(crate) fn write_pages(file: &File, chunk: &[u8], offset: u64) -> io::Result<u64> {
    let pages = chunk.chunks(PAGE).map(|page| !is_zero(page));
    let pages: Vec<bool> = pages.collect();
    let (mut stored, mut page) = (0, 0);
    for run in pages.chunk_by(|a, b| a == b) {
        let start = page * PAGE;
        page += run.len();
        if run[0] {
            let bytes = &chunk[start..chunk.len().min(page * PAGE)];
            file.write_all_at(bytes, offset + start as u64)?;
            stored += bytes.len() as u64;
        }
    }
    Ok(stored)
}

/// Whether the file ends as the snapshot `id` with `size` bytes of RAM has it.
pub(crate) fn check_footer(
    file: &File,
    id: [u8; 16],
    size: u64,
) -> io::Result<Result<(), DamageKind>> {
    let mut found = vec![0; FOOTER as usize];
    file.read_exact_at(&mut found, size)?;
    Ok(if found == footer(id, size) {
        Ok(())
    } else if found.starts_with(&MAGIC) {
        Err(DamageKind::OtherSnapshot)
    } else {
        Err(DamageKind::Kind)
    })
}

/// Compares RAM in its file with the index. `progress` is told how many bytes of how many were looked at.
pub(crate) fn verify(
    file: &File,
    index: &MemoryIndex,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Result<(), DamageKind>> {
    let size = index.memory_size;
    let chunk_size = u64::from(index.chunk_size);
    let mut buffer = vec![0; chunk_size.min(size) as usize];
    let mut data = 0..0;
    for (chunk, expected) in (0_u64..).zip(&index.chunks) {
        let start = chunk * chunk_size;
        let end = size.min(start + chunk_size);
        if data.end <= start {
            data = next_data(file, start)?;
        }
        let found = if data.start < end {
            let buffer = &mut buffer[..(end - start) as usize];
            file.read_exact_at(buffer, start)?;
            digest(buffer)
        } else {
            None
        };
        if found != *expected {
            let offset = start;
            return Ok(Err(DamageKind::Chunk { chunk, offset }));
        }
        progress(end, size);
    }
    Ok(Ok(()))
}

/// The first range from `start` on that is not a hole.
fn next_data(file: &File, start: u64) -> io::Result<std::ops::Range<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(start)) {
        Ok(data) => Ok(data..rustix::fs::seek(file, SeekFrom::Hole(data))?),
        Err(Errno::NXIO) => Ok(u64::MAX..u64::MAX),
        Err(error) => Err(error.into()),
    }
}
