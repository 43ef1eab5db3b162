//! Reading a blob that was stored. It is not trusted.

use crate::config::ENTROPY_LEN;
use crate::structure::StructureType;
use std::ops::Range;

const HEADER: usize = 8;

/// A structure of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawStructure {
    /// Its type, which may be none that is known.
    pub kind: u32,
    /// Where its payload is in the blob.
    pub payload: Range<usize>,
}

/// What is wrong with a stored blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// A structure does not fit.
    #[error(
        "the structure at {offset:#x} in the firmware's configuration has an impossible length"
    )]
    Length {
        /// Its offset in bytes.
        offset: usize,
    },
    /// The number or the length of the structures is not what the first one says.
    #[error("the first structure of the firmware's configuration does not say what follows")]
    Count,
    /// There are not the random bytes that there have to be.
    #[error("the firmware's configuration has no structure for {ENTROPY_LEN} random bytes")]
    NoEntropy,
}

/// The structures of `blob`, checked as the firmware does.
pub fn structures(blob: &[u8]) -> Result<Vec<RawStructure>, BlobError> {
    let word = |at: usize| {
        let bytes = blob.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u32::from_le_bytes(*bytes))
    };
    let mut structures = Vec::new();
    let mut offset = 0;
    while offset < blob.len() {
        let failed = BlobError::Length { offset };
        let (Some(kind), Some(len)) = (word(offset), word(offset + 4)) else {
            return Err(failed);
        };
        let len = len as usize;
        if len <= HEADER || !len.is_multiple_of(8) || len > blob.len() - offset {
            return Err(failed);
        }
        structures.push(RawStructure {
            kind,
            payload: offset + HEADER..offset + len,
        });
        offset += len;
    }
    let first = structures
        .first()
        .map(|first| (first.kind, first.payload.len()));
    let count = word(HEADER).map(|count| count as usize);
    let total = word(HEADER + 4).map(|total| total as usize);
    let says = first == Some((StructureType::StructureCount.number(), 8))
        && count == Some(structures.len())
        && structures.len() > 1
        && total == Some(blob.len());
    says.then_some(structures).ok_or(BlobError::Count)
}

/// Puts other random bytes into `blob`.
pub fn replace_entropy(blob: &mut [u8], entropy: &[u8; ENTROPY_LEN]) -> Result<(), BlobError> {
    let structures = structures(blob)?;
    let payload = structures.into_iter().find_map(|structure| {
        let found = structure.kind == StructureType::Entropy.number()
            && structure.payload.len() == ENTROPY_LEN;
        found.then_some(structure.payload)
    });
    blob[payload.ok_or(BlobError::NoEntropy)?].copy_from_slice(entropy);
    Ok(())
}
