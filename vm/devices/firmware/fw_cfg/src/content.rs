//! The content of an item.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// The content of an item: bytes in memory, or a part of a file that is read when the guest reads the item.
///
/// Clones share the bytes. Changes of the file while the VM is running are visible to the guest.
#[derive(Debug, Clone)]
pub struct ItemContent {
    source: Source,
    start: u64,
    len: u64,
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(Arc<[u8]>),
    File(Arc<File>),
}

impl ItemContent {
    fn new(source: Source, start: u64, len: u64) -> Self {
        Self { source, start, len }
    }

    /// The whole content of a regular file, with its current length.
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

    /// The part of at most `len` bytes from `start` on. It is shorter, or empty, at the end of the content.
    #[must_use]
    pub fn part(&self, start: u64, len: u64) -> Self {
        let start = start.min(self.len);
        let len = len.min(self.len - start);
        // No overflow: the sum is within the content.
        Self::new(self.source.clone(), self.start + start, len)
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the content is empty.
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

    /// Fills `buf` with the bytes from `offset` on. Fails if the content ends before that.
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
}

impl From<Arc<[u8]>> for ItemContent {
    fn from(bytes: Arc<[u8]>) -> Self {
        let len = bytes.len() as u64;
        Self::new(Source::Bytes(bytes), 0, len)
    }
}

impl From<Vec<u8>> for ItemContent {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Arc::<[u8]>::from(bytes))
    }
}

impl From<&[u8]> for ItemContent {
    fn from(bytes: &[u8]) -> Self {
        Self::from(Arc::<[u8]>::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn both(bytes: &[u8]) -> [ItemContent; 2] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        [ItemContent::from(bytes), ItemContent::file(file).unwrap()]
    }

    #[test]
    fn parts_are_limited_to_the_content() {
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
            }
            let mut two = [0; 2];
            assert!(content.read_at(9, &mut two).is_err());
            assert!(content.read_at(u64::MAX, &mut two).is_err());
        }
    }

    #[test]
    fn reading_a_truncated_file_fails() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(300_000).unwrap();
        let content = ItemContent::file(file.try_clone().unwrap()).unwrap();
        file.set_len(4).unwrap();
        assert!(content.read_at(2, &mut [0; 4]).is_err());
        assert!(ItemContent::file(File::open("/").unwrap()).is_err());
    }
}
