//! The index of guest RAM: a digest for each chunk.
//!
//! All numbers are little-endian: at 0 the magic, at 8 the format version (4 bytes), at 12 the chunk size (4 bytes), at 16
//! the snapshot's ID, at 32 the size of RAM (8 bytes), at 40 the number of chunks (8 bytes), zeros up to 64. Then 16 bytes
//! for each chunk: its digest, or zeros for a chunk that is zero.

use crate::DamageKind;
use crate::Digest;
use crate::VERSION;

const MAGIC: [u8; 8] = *b"OVMSNIDX";

/// The length of the header in bytes.
pub const HEADER_LEN: usize = 64;
/// The length of an entry in bytes.
pub const ENTRY_LEN: usize = 16;
/// The longest index that is read, in bytes.
pub const MAX_INDEX_LEN: u64 = 64 << 20;

/// The digests of guest RAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryIndex {
    /// The snapshot's ID.
    pub id: [u8; 16],
    /// The size of a chunk in bytes.
    pub chunk_size: u32,
    /// The size of RAM in bytes.
    pub memory_size: u64,
    /// The digest of each chunk; `None` for one that is zero.
    pub chunks: Vec<Option<Digest>>,
}

impl MemoryIndex {
    /// The index as a file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.chunks.len() * ENTRY_LEN);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.chunk_size.to_le_bytes());
        bytes.extend(self.id);
        bytes.extend(self.memory_size.to_le_bytes());
        bytes.extend((self.chunks.len() as u64).to_le_bytes());
        bytes.resize(HEADER_LEN, 0);
        for chunk in &self.chunks {
            bytes.extend(chunk.unwrap_or_default().0);
        }
        bytes
    }

    /// Reads the file. What is not such a file is refused; every length is checked against that of the file.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamageKind> {
        let (header, entries) = bytes.split_at_checked(HEADER_LEN).ok_or(DamageKind::Kind)?;
        let (entries, rest) = entries.as_chunks::<ENTRY_LEN>();
        let chunk_size = u32::from_le_bytes(field(header, 12));
        let memory_size = u64::from_le_bytes(field(header, 32));
        let valid = field::<8>(header, 0) == MAGIC
            && u32::from_le_bytes(field(header, 8)) == VERSION
            && header[48..].iter().all(|byte| *byte == 0)
            && rest.is_empty()
            && chunk_size.is_power_of_two()
            && chunk_size >= 4096
            && u64::from_le_bytes(field(header, 40)) == entries.len() as u64
            && memory_size.div_ceil(chunk_size.into()) == entries.len() as u64;
        if !valid {
            return Err(DamageKind::Kind);
        }
        let chunks = entries.iter().map(|entry| {
            let digest = Digest(*entry);
            (digest != Digest::default()).then_some(digest)
        });
        Ok(Self {
            id: field(header, 16),
            chunk_size,
            memory_size,
            chunks: chunks.collect(),
        })
    }
}

/// `N` bytes at `offset` of a header that has them.
fn field<const N: usize>(header: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|n| header[offset + n])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index() -> MemoryIndex {
        MemoryIndex {
            id: [3; 16],
            chunk_size: 4096,
            memory_size: 3 * 4096 - 5,
            chunks: vec![Some(Digest::of(b"a")), None, Some(Digest::of(b"b"))],
        }
    }

    #[test]
    fn an_index_is_read_back() {
        let bytes = index().encode();
        assert_eq!(bytes.len(), HEADER_LEN + 3 * ENTRY_LEN);
        assert_eq!(MemoryIndex::decode(&bytes), Ok(index()));
        for len in 0..bytes.len() {
            assert!(MemoryIndex::decode(&bytes[..len]).is_err(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_an_index(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(index) = MemoryIndex::decode(&bytes) {
                prop_assert_eq!(index.encode(), bytes);
            }
        }
    }
}
