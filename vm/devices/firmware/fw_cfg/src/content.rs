//! What an item holds.

use sha2::Digest as _;
use sha2::Sha256;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::OnceLock;

/// How much of a file is read at once, in bytes.
pub(crate) const CHUNK: usize = 256 << 10;

/// The content of an item: bytes in memory, or a part of a file that is read when the guest asks for it.
///
/// Clones share the bytes. A file's content is what the file holds at the time of the read; whoever needs it
/// to stay the same must not change the file while the VM runs.
#[derive(Debug, Clone)]
pub struct Content {
    source: Source,
    start: u64,
    len: u64,
    digest: Arc<OnceLock<[u8; 32]>>,
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(Arc<[u8]>),
    File(Arc<File>),
}

impl Content {
    fn new(source: Source, start: u64, len: u64) -> Self {
        Self {
            source,
            start,
            len,
            digest: Arc::default(),
        }
    }

    /// All of a regular file, as long as it is now.
    pub fn file(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Self::new(Source::File(Arc::new(file)), 0, metadata.len()))
    }

    /// The part from byte `start` on, of at most `len` bytes. It is shorter, or empty, where the content ends.
    #[must_use]
    pub fn part(&self, start: u64, len: u64) -> Self {
        let start = start.min(self.len);
        let len = len.min(self.len - start);
        // No overflow: the sum is in the content.
        Self::new(self.source.clone(), self.start + start, len)
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, if they are in memory.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Bytes(bytes) => {
                let start = self.start as usize;
                bytes.get(start..start + self.len as usize)
            }
            Source::File(_) => None,
        }
    }

    /// Fills `buf` with the bytes from `offset`, which must all be there.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.source {
            Source::Bytes(bytes) => {
                let start = (self.start + offset) as usize;
                buf.copy_from_slice(&bytes[start..start + buf.len()]);
                Ok(())
            }
            Source::File(file) => file.read_exact_at(buf, self.start + offset),
        }
    }

    /// The SHA-256 of the content, reckoned once.
    pub fn sha256(&self) -> io::Result<[u8; 32]> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let mut hash = Sha256::new();
        match self.as_bytes() {
            Some(bytes) => hash.update(bytes),
            None => {
                let mut chunk = vec![0; CHUNK.min(self.len as usize)];
                let mut offset = 0;
                while offset < self.len {
                    let count = (self.len - offset).min(chunk.len() as u64);
                    let part = &mut chunk[..count as usize];
                    self.read_at(offset, part)?;
                    hash.update(part);
                    offset += count;
                }
            }
        }
        Ok(*self.digest.get_or_init(|| hash.finalize().into()))
    }

    /// The SHA-256 of the content, if that was asked for before.
    pub(crate) fn known_sha256(&self) -> Option<[u8; 32]> {
        self.digest.get().copied()
    }
}

impl From<Arc<[u8]>> for Content {
    fn from(bytes: Arc<[u8]>) -> Self {
        let len = bytes.len() as u64;
        Self::new(Source::Bytes(bytes), 0, len)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Arc::<[u8]>::from(bytes))
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self::from(Arc::<[u8]>::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn both(bytes: &[u8]) -> [Content; 2] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        [Content::from(bytes), Content::file(file).unwrap()]
    }

    #[test]
    fn parts_end_where_the_content_ends() {
        for content in both(b"0123456789") {
            for (start, len, expected) in [
                (0, 10, &b"0123456789"[..]),
                (2, 3, b"234"),
                (8, u64::MAX, b"89"),
                (u64::MAX, u64::MAX, b""),
            ] {
                let part = content.part(1, 9).part(0, u64::MAX);
                assert_eq!(part.len(), 9);
                let part = content.part(start, len);
                let mut read = vec![0; part.len() as usize];
                part.read_at(0, &mut read).unwrap();
                assert_eq!(read, expected);
                assert_eq!(
                    part.sha256().unwrap(),
                    <[u8; 32]>::from(Sha256::digest(expected))
                );
            }
            let mut two = [0; 2];
            assert!(content.read_at(9, &mut two).is_err());
            assert!(content.read_at(u64::MAX, &mut two).is_err());
        }
    }

    #[test]
    fn a_file_that_shrank_is_an_error_and_not_other_bytes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(CHUNK as u64 + 1).unwrap();
        let content = Content::file(file.try_clone().unwrap()).unwrap();
        file.set_len(4).unwrap();
        assert!(content.read_at(2, &mut [0; 4]).is_err());
        assert!(content.sha256().is_err());
        assert!(Content::file(File::open("/").unwrap()).is_err());
    }
}
