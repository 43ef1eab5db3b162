//! The new content of a file.

use std::borrow::Cow;
use std::io;

/// The source of a file's new content.
pub(crate) enum Content<'a> {
    /// Bytes in memory.
    Bytes(Cow<'a, [u8]>),
    /// A stream. `len` bytes are read from it during the commit.
    Stream {
        len: u64,
        source: &'a mut (dyn io::Read + Send),
    },
}

impl Content<'_> {
    /// The length of the content in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stream { len, .. } => *len,
        }
    }
}
